package main

import (
	"crypto/tls"

	"chandler/agent/detect"
	"chandler/agent/fetch"
	"chandler/agent/fetch/dpsource"
)

// sources is the table of where content can be read from, by the scheme of an address. secure says whose
// certificates are believed; nil: those of the system's authorities.
func sources(secure *tls.Config) map[string]fetch.Source {
	dp := dpsource.New(dpsource.Options{TLS: secure})
	return map[string]fetch.Source{"http": dp, "https": dp}
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
