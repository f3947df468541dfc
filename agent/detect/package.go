package detect

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"

	"chandler/events"
)

// Dpkg detects by the database of dpkg.
type Dpkg struct {
	Run  Run
	Root string // directory that stands for "/", for tests and demonstrations; empty means "/"
}

// Rpm detects by the database of rpm.
type Rpm struct {
	Run  Run
	Root string // as in Dpkg
}

var (
	// The tools take patterns and options where a name is meant.
	dpkgName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{0,199}(:[a-z0-9-]{1,30})?$`)
	rpmName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,199}$`)
)

// Detect asks for the package rule.Dpkg, which may end in ":architecture".
// Removed packages whose configuration is left do not count, nor do half installed ones.
func (d Dpkg) Detect(ctx context.Context, rule events.Detect) Result {
	if !dpkgName.MatchString(rule.Dpkg) {
		return unknown("%q is not a name of a dpkg package", rule.Dpkg)
	}
	argv := []string{"dpkg-query"}
	if d.Root != "" {
		if err := checkRoot(d.Root); err != nil {
			return unknown("%v", err)
		}
		argv = append(argv, "--root="+d.Root)
	}
	out, err := d.Run(ctx, "", append(argv, "-W", `-f=${db:Status-Status} ${Version}\n`, rule.Dpkg)...)
	switch {
	case err != nil:
		return noOutcome("dpkg-query", err)
	case out.Code == 1 && strings.Contains(out.Stderr, "no packages found matching"):
		return notInstalled("dpkg knows no package %s", rule.Dpkg)
	case out.Code != 0:
		return unknown("dpkg-query failed with exit code %d: %s", out.Code, excerpt(out.Stderr))
	}
	var versions []string
	status := "not-installed"
	// One line per architecture.
	for line := range strings.Lines(out.Stdout) {
		state, version, _ := strings.Cut(strings.TrimSpace(line), " ")
		// While its triggers are awaited or pending, a package is configured and works.
		if state == "installed" || state == "triggers-awaited" || state == "triggers-pending" {
			versions = append(versions, version)
		} else {
			status = state
		}
	}
	if len(versions) == 0 {
		return notInstalled("dpkg package %s has the status %s", rule.Dpkg, excerpt(status))
	}
	return judge("dpkg package "+rule.Dpkg, versions, rule.Version, compareDeb)
}

// Detect asks for the package rule.Rpm.
func (r Rpm) Detect(ctx context.Context, rule events.Detect) Result {
	if !rpmName.MatchString(rule.Rpm) {
		return unknown("%q is not a name of an rpm package", rule.Rpm)
	}
	argv := []string{"rpm"}
	if r.Root != "" {
		if err := checkRoot(r.Root); err != nil {
			return unknown("%v", err)
		}
		argv = append(argv, "--root="+r.Root)
	}
	out, err := r.Run(ctx, "", append(argv, "-q", "--qf", `%{NAME} %{EPOCHNUM}:%{VERSION}-%{RELEASE}\n`, rule.Rpm)...)
	switch {
	case err != nil:
		return noOutcome("rpm", err)
	// An unreadable database has this exit code and text too, and an error before it.
	case out.Code == 1 && out.Stderr == "" && strings.HasSuffix(strings.TrimSpace(out.Stdout), "is not installed"):
		return notInstalled("rpm package %s is not installed", rule.Rpm)
	case out.Code != 0:
		return unknown("rpm failed with exit code %d: %s", out.Code, excerpt(out.Stderr+" "+out.Stdout))
	}
	var versions []string
	for line := range strings.Lines(out.Stdout) {
		name, version, _ := strings.Cut(strings.TrimSpace(line), " ")
		// rpm takes hello-2.10 and hello.x86_64 for names too.
		if name != rule.Rpm {
			return unknown("rpm takes %s for the package %s: a rule states the name alone", rule.Rpm, excerpt(name))
		}
		versions = append(versions, strings.TrimPrefix(version, "0:"))
	}
	if len(versions) == 0 {
		return unknown("rpm printed nothing about %s", rule.Rpm)
	}
	return judge("rpm package "+rule.Rpm, versions, rule.Version, compareRpm)
}

// judge decides by the installed versions, one of which must meet the constraint.
func judge(what string, versions []string, constraint string, compare compareFunc) Result {
	wanted, err := ParseConstraint(constraint)
	if err != nil {
		return unknown("%v", err)
	}
	for _, version := range versions {
		met, err := wanted.met(version, compare)
		if err != nil {
			return unknown("%s: %v", what, err)
		}
		if met {
			return installed("%s is installed in version %s", what, version)
		}
	}
	return notInstalled("%s is installed in version %s, not %s", what, strings.Join(versions, " and "), wanted)
}

// checkRoot keeps a wrong setting from reading as "nothing is installed".
func checkRoot(root string) error {
	info, err := os.Stat(root)
	if err != nil {
		return fmt.Errorf("package root: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("package root %s is not a directory", root)
	}
	return nil
}
