package manifest

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"chandler/events"
)

// Words that a program's fields may hold; the empty one is the default.
var (
	logons      = []string{"", events.LogonUser, events.LogonNone, events.LogonAny}
	timeouts    = []string{"", "kill", "stop-monitoring"}
	shells      = []string{"", "sh", "cmd", "powershell"}
	afters      = []string{"", events.AfterNone, events.AfterRestart, events.AfterProgramRestarts, events.AfterLogoff}
	msiScopes   = []string{"", events.MSIScopeMachine, events.MSIScopeAsAuthored}
	returnWords = []string{"success", "failure", "soft-reboot", "hard-reboot", "retry"}
)

// productCode names one product of Windows Installer.
var productCode = regexp.MustCompile(`^\{[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\}$`)

// versionCondition is what agents can compare.
var versionCondition = regexp.MustCompile(`^(=|>=|>|<=|<)?\s*[0-9A-Za-z.+~^:_-]{1,100}$`)

// maxRunTime is the longest a program may run; the original's field ends at 12 hours, ours at a week.
const maxRunTime = 7 * 24 * time.Hour

func (c *checker) program(where, name string, p events.Program, m events.Manifest) {
	c.command(where, name, p)
	c.run(where, name, p)
	c.account(where, name, p)
	c.session(where, name, p)
	c.word(where, name, "logon", p.Logon, logons)
	c.word(where, name, "on-timeout", p.OnTimeout, timeouts)
	c.word(where, name, "shell", p.Shell, shells)
	c.word(where, name, "after", p.After, afters)
	c.word(where, name, "msi-scope", p.MSIScope, msiScopes)
	if p.Product != "" && !productCode.MatchString(p.Product) {
		c.add(where, "program %s: product %.80q is no product code: it is a GUID in braces", name, p.Product)
	}
	if p.WorkingDirectory != "" {
		if err := ValidPath(p.WorkingDirectory); err != nil {
			c.add(where+".working-directory", "program %s: working-directory: %s", name, strings.Replace(err.Error(), "file path", "path", 1))
		}
	}
	c.environment(where, name, p.Environment)
	c.references(where, name, p)
	c.resources(where, name, m)
	switch {
	case p.MaxRunTime < 0:
		c.add(where+".max-run-time", "program %s: max-run-time is negative", name)
	case time.Duration(p.MaxRunTime) > maxRunTime:
		c.add(where+".max-run-time", "program %s: max-run-time %s is more than %s", name, time.Duration(p.MaxRunTime), maxRunTime)
	}
	c.text(where+".applies-if", "program "+name+": applies-if", p.AppliesIf)
	c.text(where+".comment", "program "+name+": comment", p.Comment)
	c.returnCodes(where, name, p.ReturnCodes)
	c.relations(where, name, p, m)
	c.requirements(where, name, p)
	if len(p.Detect) > MaxList {
		c.add(where+".detect", "program %s has %d detection rules, at most %d are allowed", name, len(p.Detect), MaxList)
		return
	}
	for i, d := range p.Detect {
		c.detect(fmt.Sprintf("%s.detect[%d]", where, i), fmt.Sprintf("program %s: detect rule %d", name, i+1), d)
	}
}

func (c *checker) command(where, name string, p events.Program) {
	argv := p.Command.Argv
	switch {
	case p.Command.Empty():
		c.add(where, "program %s has no command", name)
	case len(argv) > 0 && p.Command.Line != "":
		c.add(where+".command", "program %s: command is both a list and a line", name)
	case len(argv) > 0 && argv[0] == "" || len(argv) == 0 && strings.TrimSpace(p.Command.Line) == "":
		c.add(where+".command", "program %s: command names no program", name)
	case len(argv) > MaxList:
		c.add(where+".command", "program %s: command has %d arguments, at most %d are allowed", name, len(argv), MaxList)
	case p.Shell != "" && len(argv) > 0:
		c.add(where+".shell", "program %s: a command for a shell is one line, not a list", name)
	}
	c.text(where+".command", "program "+name+": command", strings.Join(argv, " ")+p.Command.Line)
}

func (c *checker) word(where, name, key, value string, known []string) {
	if !slices.Contains(known, value) {
		words := strings.Join(slices.DeleteFunc(slices.Clone(known), func(w string) bool { return w == "" }), ", ")
		c.add(where+"."+key, "program %s: %s %q: known are %s", name, key, value, words)
	}
}

func (c *checker) environment(where, name string, environment []string) {
	if len(environment) > MaxList {
		c.add(where+".environment", "program %s: %d variables, at most %d are allowed", name, len(environment), MaxList)
		return
	}
	seen := map[string]bool{}
	for i, e := range environment {
		here := fmt.Sprintf("%s.environment[%d]", where, i)
		key, _, ok := strings.Cut(e, "=")
		switch {
		case !ok || key == "" || strings.ContainsAny(key, " \t\r\n"):
			c.add(here, "program %s: environment %.80q: write NAME=value", name, e)
		case seen[key]:
			c.add(here, "program %s: environment sets %s twice", name, key)
		}
		seen[key] = true
		c.text(here, "program "+name+": environment "+key, e)
	}
}

func (c *checker) returnCodes(where, name string, codes map[int]string) {
	if len(codes) > MaxList {
		c.add(where+".return-codes", "program %s: %d return codes, at most %d are allowed", name, len(codes), MaxList)
		return
	}
	for _, code := range slices.Sorted(maps.Keys(codes)) {
		if !slices.Contains(returnWords, codes[code]) {
			c.add(fmt.Sprintf("%s.return-codes.%d", where, code), "program %s: return code %d means %q: known are %s", name, code, codes[code], strings.Join(returnWords, ", "))
		}
		if int64(code) < -1<<31 || int64(code) >= 1<<32 {
			c.add(where+".return-codes", "program %s: return code %d has more than 32 bits", name, code)
		}
	}
}

func (c *checker) detect(where, what string, d events.Detect) {
	var kinds []string
	for _, k := range []struct{ key, value string }{{"file", d.File}, {"dpkg", d.Dpkg}, {"rpm", d.Rpm}, {"msi", d.MSI}, {"script", d.Script}} {
		if k.value != "" {
			kinds = append(kinds, k.key)
			c.text(where+"."+k.key, what, k.value)
		}
	}
	if len(kinds) != 1 {
		c.add(where, "%s must have exactly one of file, dpkg, rpm, msi and script, it has %d", what, len(kinds))
		return
	}
	switch kinds[0] {
	case "file":
		if !absolute(d.File) {
			c.add(where+".file", "%s: file %q is not an absolute path", what, d.File)
		}
	case "script":
		if !slices.Contains(shells, d.Shell) {
			c.add(where+".shell", "%s: shell %q: known are sh, cmd, powershell", what, d.Shell)
		}
	}
	if d.SHA256 != "" {
		if kinds[0] != "file" {
			c.add(where+".sha256", "%s: sha256 goes with file, not with %s", what, kinds[0])
		}
		c.err(where+".sha256", events.ValidDigest(d.SHA256))
	}
	if d.Shell != "" && kinds[0] != "script" {
		c.add(where+".shell", "%s: shell goes with script, not with %s", what, kinds[0])
	}
	if d.Version != "" && (kinds[0] == "file" || kinds[0] == "script") {
		c.add(where+".version", "%s: version goes with dpkg, rpm and msi, not with %s", what, kinds[0])
	}
	if d.Version != "" && !versionCondition.MatchString(d.Version) {
		c.add(where+".version", "%s: version %.80q: write \">= 2.10\", or another of = > >= < <= before a version", what, d.Version)
	}
}

// absolute paths are those of Unix and those of Windows; %NAME%\… is completed by the agent.
func absolute(path string) bool {
	drive := len(path) > 2 && path[1] == ':' && (path[2] == '\\' || path[2] == '/')
	return strings.HasPrefix(path, "/") || strings.HasPrefix(path, `\\`) || strings.HasPrefix(path, "%") || drive
}
