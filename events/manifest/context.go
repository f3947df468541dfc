package manifest

import "chandler/events"

// run checks with whose rights a program runs.
func (c *checker) run(where, name string, p events.Program) {
	const choose = `"run: user" (with the rights of whoever is logged on) or "run: administrative"`
	switch p.Run {
	case events.RunUser:
		if p.Logon == events.LogonNone {
			c.add(where+".logon", "program %s: run: user needs somebody logged on, logon: none forbids it", name)
		}
	case events.RunAdministrative:
	case "":
		c.add(where, "program %s does not say as whom it runs: write %s", name, choose)
	default:
		c.add(where+".run", "program %s: run: %s: write %s", name, p.Run, choose)
	}
}

// account checks what goes with an installation account: the program runs by it, unattended, and whether a user is
// there must not matter (domain-facts §2.2).
func (c *checker) account(where, name string, p events.Program) {
	if p.InstallationAccount == "" {
		return
	}
	where += ".installation-account"
	if err := events.ValidToken(p.InstallationAccount); err != nil {
		c.add(where, "program %s: installation-account: %s", name, err)
	}
	switch {
	case p.Run == events.RunUser:
		c.add(where, "program %s: installation-account is for run: administrative only", name)
	case p.Logon == events.LogonUser:
		c.add(where, "program %s: a program that runs by an installation-account cannot ask for logon: user: write logon: any or logon: none", name)
	}
	if p.Interactive {
		c.add(where, "program %s: a program that runs by an installation-account cannot be interactive", name)
	}
}

// session checks what a program asks of the session of a user (domain-facts §1.2).
func (c *checker) session(where, name string, p events.Program) {
	users := p.Logon == events.LogonUser || p.Run == events.RunUser && p.Logon == ""
	if p.EveryUser && !users {
		c.add(where+".every-user", "program %s: every-user is for programs that run only when a user is logged on: write logon: user", name)
	}
	if p.Interactive && p.Run != events.RunUser && p.Logon == events.LogonNone {
		c.add(where+".interactive", "program %s: interactive needs somebody to see it, logon: none forbids that", name)
	}
}
