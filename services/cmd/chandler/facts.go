package main

import (
	"fmt"
	"reflect"
	"strings"

	"chandler/events"
)

// factText describes one fact for people, with a value such as agents report.
type factText struct{ what, example string }

// factTexts is the table of facts by their names in expressions; a test holds it against [events.Facts].
func factTexts() map[string]factText {
	return map[string]factText{
		"id":                {"the agent's id", `"k3v9x2m4q7ab"`},
		"hostname":          {"the machine's name", `"ws-0412"`},
		"domain":            {"domain that it belongs to", `"example"`},
		"os":                {"kind of operating system: linux, windows or darwin", `"linux"`},
		"os_name":           {"name of the operating system", `"debian"`},
		"os_version":        {"its version", `"12.7"`},
		"arch":              {"processor: amd64, arm64, …", `"amd64"`},
		"kernel":            {"version of the kernel", `"6.1.0"`},
		"addresses":         {"IP addresses", `["192.0.2.17"]`},
		"site":              {"site that the agent was told", `"oslo"`},
		"tags":              {"tags that the agent was told", `["office"]`},
		"client_kind":       {"advanced (runs as the system) or legacy", `"advanced"`},
		"domain_controller": {"whether it is a domain controller", "false"},
		"memory_bytes":      {"memory in bytes", "8589934592"},
		"trust":             {"version of the trust bundle that it holds", "3"},
		"version":           {"version of the agent", `"` + version + `"`},
		"privileged":        {"whether the agent runs as root or LocalSystem", "true"},
		"offer_format":      {"newest form of offers that the agent reads", fmt.Sprint(events.OfferFormat)},
		"zone":              {"time zone", `"Europe/Oslo"`},
		"boot_id":           {"changes with every start of the machine", `"8f6c1d"`},
		"incomplete":        {"facts that could not be read", `["domain"]`},
	}
}

// factNames are the facts in the order of their declaration.
func factNames() (names []string) {
	t := reflect.TypeFor[events.Facts]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// factsHelp lists every fact, as help shows it.
func factsHelp() string {
	texts := factTexts()
	var lines []string
	for _, name := range factNames() {
		lines = append(lines, fmt.Sprintf("  agent.%-18s %-52s %s", name, texts[name].what, texts[name].example))
	}
	return strings.Join(lines, "\n")
}
