package detect

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"chandler/events"
	"chandler/events/msi"
)

// MSI detects by Windows Installer's record of products in the registry. A
// product that is only installed for single users is Unknown, because a rule does
// not say for whom it asks. Off Windows everything is Unknown.
type MSI struct{}

// product is one registration of a product code.
type product struct {
	sid     string // for whom it is installed
	version string
}

const (
	systemSID    = "S-1-5-18" // per machine
	productsPath = `SOFTWARE\Microsoft\Windows\CurrentVersion\Installer\UserData`
)

var errNoMSI = errors.New("this machine has no Windows Installer")

// Detect looks for the product code rule.MSI, "{8-4-4-4-12}".
func (MSI) Detect(_ context.Context, rule events.Detect) Result {
	packed, err := msi.PackCode(rule.MSI)
	if err != nil {
		return unknown("%v", err)
	}
	products, err := registeredProducts(packed)
	if err != nil {
		return unknown("MSI product %s cannot be looked up: %v", rule.MSI, err)
	}
	return judgeProducts(rule, products)
}

func judgeProducts(rule events.Detect, products []product) Result {
	what := "MSI product " + rule.MSI
	var versions, users []string
	for _, p := range products {
		if p.sid == systemSID {
			versions = append(versions, p.version)
		} else {
			users = append(users, fmt.Sprintf("%s (version %s)", p.sid, p.version))
		}
	}
	switch {
	case len(versions) > 0:
		return judge(what, versions, rule.Version, compareDotted)
	case len(users) > 0:
		return unknown("%s is not installed for the machine, but for the user %s", what, strings.Join(users, " and "))
	}
	return notInstalled("%s is not installed", what)
}
