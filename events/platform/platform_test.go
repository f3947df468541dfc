package platform

import (
	"strings"
	"testing"

	"chandler/events"
)

func TestWhichMachinesAPlatformIs(t *testing.T) {
	debian := events.Facts{OS: "linux", Arch: "amd64", OSName: "debian", OSVersion: "12.7"}
	eleven := events.Facts{OS: "windows", Arch: "arm64", OSName: "Microsoft Windows 11 Pro", OSVersion: "10.0.22631.4317 Build 22631.4317"}
	for name, c := range map[string]struct {
		platform events.Platform
		facts    events.Facts
		says     string // "": it is
	}{
		"the system alone":                           {events.Platform{OS: "linux"}, debian, ""},
		"another system":                             {events.Platform{OS: "windows"}, debian, "the fact os is linux"},
		"the processor":                              {events.Platform{OS: "linux", Arch: "amd64"}, debian, ""},
		"another processor":                          {events.Platform{OS: "linux", Arch: "arm64"}, debian, "the fact arch is amd64"},
		"the beginning of its name, in any case":     {events.Platform{OS: "windows", Name: "microsoft windows 11"}, eleven, ""},
		"another name":                               {events.Platform{OS: "linux", Name: "ubuntu"}, debian, `the fact os_name is "debian"`},
		"a name that is longer than the machine's":   {events.Platform{OS: "linux", Name: "debian edu"}, debian, `the fact os_name is "debian"`},
		"numbers count as numbers":                   {events.Platform{OS: "linux", MinVersion: "9"}, debian, ""},
		"a version that is below":                    {events.Platform{OS: "linux", MinVersion: "12.8"}, debian, "the fact os_version is 12.7"},
		"both bounds are in it":                      {events.Platform{OS: "linux", MinVersion: "12.7", MaxVersion: "12.7"}, debian, ""},
		"a bound with fewer numbers":                 {events.Platform{OS: "linux", MaxVersion: "12"}, debian, ""},
		"a version that is above":                    {events.Platform{OS: "linux", MaxVersion: "12.6"}, debian, "the fact os_version is 12.7"},
		"words behind the version":                   {events.Platform{OS: "windows", MinVersion: "10.0.22000", MaxVersion: "10.0.22631"}, eleven, ""},
		"a version that nobody knows":                {events.Platform{OS: "linux", MinVersion: "1"}, events.Facts{OS: "linux", OSVersion: "trixie/sid"}, `"trixie/sid", which is no version`},
		"a version that nobody knows nor asks for":   {events.Platform{OS: "linux"}, events.Facts{OS: "linux"}, ""},
		"a processor that nobody knows":              {events.Platform{OS: "linux", Arch: "arm"}, events.Facts{OS: "linux"}, "the fact arch is unknown"},
		"a letter whose case has another length":     {events.Platform{OS: "linux", Name: "K"}, events.Facts{OS: "linux", OSName: "\u212aelvin"}, "the fact os_name"},
		"more numbers in the bound than the version": {events.Platform{OS: "linux", MinVersion: "12.7.0.0", MaxVersion: "12.7.0.1"}, debian, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Refuses([]events.Platform{c.platform}, c.facts); (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
				t.Errorf("it says %q, want %q", got, c.says)
			}
		})
	}
}

func TestAProgramIsForEveryPlatformThatItNames(t *testing.T) {
	windows, debian := events.Platform{OS: "windows"}, events.Platform{OS: "linux", Arch: "amd64", Name: "debian", MinVersion: "12", MaxVersion: "13"}
	machine := events.Facts{OS: "linux", Arch: "amd64", OSName: "debian", OSVersion: "12.1"}
	if got := Refuses(nil, machine); got != "" {
		t.Errorf("one that names none: %s", got)
	}
	if got := Refuses([]events.Platform{windows, debian}, machine); got != "" {
		t.Errorf("one of two: %s", got)
	}
	machine.OSVersion = "11.3"
	want := "not windows: the fact os is linux; not linux amd64 debian from 12 up to 13: the fact os_version is 11.3"
	if got := Refuses([]events.Platform{windows, debian}, machine); got != want {
		t.Errorf("neither of two: %q, want %q", got, want)
	}
}
