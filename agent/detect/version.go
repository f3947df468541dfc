package detect

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	debversion "github.com/knqyf263/go-deb-version"
	rpmversion "github.com/knqyf263/go-rpm-version"
)

// Constraint is a condition on a version, such as ">= 2.10".
type Constraint struct {
	Op      string // "=", ">=", ">", "<=" or "<"; empty for any version
	Version string
}

const maxVersion = 128 // bytes

var (
	constraintText = regexp.MustCompile(`^(=|>=|>|<=|<)?\s*([0-9A-Za-z.+~^:_-]+)$`)
	// The comparing packages read numbers into ints.
	longNumber = regexp.MustCompile(`[0-9]{19}`)
)

// ParseConstraint reads an operator and a version. A bare version must be met
// exactly; an empty text is met by any version.
func ParseConstraint(text string) (Constraint, error) {
	if len(text) > maxVersion {
		return Constraint{}, fmt.Errorf("version condition of %d bytes is longer than %d", len(text), maxVersion)
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return Constraint{}, nil
	}
	m := constraintText.FindStringSubmatch(text)
	if m == nil || longNumber.MatchString(text) {
		return Constraint{}, fmt.Errorf(`version condition %q: write it as "2.10" or with one of =, >=, >, <=, < in front`, text)
	}
	if m[1] == "" {
		m[1] = "="
	}
	return Constraint{Op: m[1], Version: m[2]}, nil
}

func (c Constraint) String() string {
	if c.Op == "" {
		return "any version"
	}
	return c.Op + " " + c.Version
}

// compareFunc orders an installed version against a constraint's, like cmp.Compare.
type compareFunc func(installed, wanted string) (int, error)

// met says whether the installed version satisfies the constraint.
func (c Constraint) met(installed string, compare compareFunc) (bool, error) {
	if c.Op == "" {
		return true, nil
	}
	if len(installed) > maxVersion || longNumber.MatchString(installed) {
		return false, fmt.Errorf("version %.40q cannot be compared", installed)
	}
	order, err := compare(installed, c.Version)
	if err != nil {
		return false, err
	}
	switch c.Op {
	case "=":
		return order == 0, nil
	case ">=":
		return order >= 0, nil
	case ">":
		return order > 0, nil
	case "<=":
		return order <= 0, nil
	case "<":
		return order < 0, nil
	}
	return false, fmt.Errorf("version condition has the operator %q", c.Op)
}

// compareDeb follows dpkg: 2.10 and 2.10-3 are different versions.
func compareDeb(installed, wanted string) (int, error) {
	a, err := debversion.NewVersion(installed)
	if err != nil {
		return 0, fmt.Errorf("version %q: %w", installed, err)
	}
	b, err := debversion.NewVersion(wanted)
	if err != nil {
		return 0, fmt.Errorf("version %q: %w", wanted, err)
	}
	return a.Compare(b), nil
}

// compareRpm follows rpm's dependencies: a condition without a release is about
// any release of that version.
func compareRpm(installed, wanted string) (int, error) {
	for _, v := range []string{installed, wanted} {
		if epoch, _, ok := strings.Cut(v, ":"); ok {
			if _, err := strconv.ParseUint(epoch, 10, 31); err != nil {
				return 0, fmt.Errorf("version %q: epoch is not a number", v)
			}
		}
	}
	if !strings.Contains(wanted, "-") {
		installed, _, _ = strings.Cut(installed, "-")
	}
	return rpmversion.NewVersion(installed).Compare(rpmversion.NewVersion(wanted)), nil
}

// compareDotted compares numbers between dots; missing ones are zero. Windows
// versions have up to four.
func compareDotted(installed, wanted string) (int, error) {
	a, errA := dotted(installed)
	b, errB := dotted(wanted)
	if err := errors.Join(errA, errB); err != nil {
		return 0, err
	}
	for i := range max(len(a), len(b)) {
		var x, y uint64
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if order := cmp.Compare(x, y); order != 0 {
			return order, nil
		}
	}
	return 0, nil
}

func dotted(version string) ([]uint64, error) {
	var numbers []uint64
	for part := range strings.SplitSeq(version, ".") {
		n, err := strconv.ParseUint(part, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("version %q is not numbers between dots", version)
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}
