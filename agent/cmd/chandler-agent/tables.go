package main

import (
	"crypto/tls"

	"chandler/agent/detect"
	"chandler/agent/elevate"
	"chandler/agent/execute"
	"chandler/agent/execute/installationrunner"
	"chandler/agent/execute/systemrunner"
	"chandler/agent/execute/tokenrunner"
	"chandler/agent/execute/userrunner"
	"chandler/agent/fetch"
	"chandler/agent/fetch/dpsource"
	"chandler/agent/identity"
)

// sources is the table of where content can be read from, by the scheme of an address. secure says whose
// certificates are believed; nil: those of the system's authorities.
func sources(secure *tls.Config) map[string]fetch.Source {
	dp := dpsource.New(dpsource.Options{TLS: secure})
	return map[string]fetch.Source{"http": dp, "https": dp}
}

// runners is the table of whose rights programs run with. Those that give rights to an account keep them by rights.
func runners(rights *elevate.Keeper, tokenAccount string) (map[string]execute.Runner, error) {
	token, err := tokenrunner.New(tokenrunner.Options{Keeper: rights, Account: tokenAccount})
	if err != nil {
		return nil, err
	}
	installation, err := installationrunner.New(installationrunner.Options{Keeper: rights})
	if err != nil {
		return nil, err
	}
	return map[string]execute.Runner{
		identity.System.Runner():       systemrunner.New(),
		identity.User.Runner():         userrunner.New(userrunner.Options{}),
		identity.ClientToken.Runner():  token,
		identity.Installation.Runner(): installation,
	}, nil
}

// kinds is the table of how products are detected. Tools and scripts get env beside the agent's own.
func kinds(env []string, scripts string) map[string]detect.Kind {
	tool := detect.Exec(env)
	return map[string]detect.Kind{
		detect.KindFile:   detect.File{},
		detect.KindDpkg:   detect.Dpkg{Run: tool},
		detect.KindRpm:    detect.Rpm{Run: tool},
		detect.KindMSI:    detect.MSI{},
		detect.KindScript: detect.Script{Run: tool, Dir: scripts},
	}
}
