package agent

import (
	"errors"
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
			if got := differs(c.platform, c.facts); (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
				t.Errorf("it says %q, want %q", got, c.says)
			}
		})
	}
}

func TestAProgramForOtherPlatformsIsRefusedWithTheFactAndTheList(t *testing.T) {
	m := newMachine(t)
	m.facts.OSName, m.facts.OSVersion = "debian", "11.3"
	platforms := func(all ...events.Platform) func(*given) {
		return program(func(p *events.Program) { p.Platforms = all })
	}
	windows, debian := events.Platform{OS: "windows"}, events.Platform{OS: "linux", Name: "debian", MinVersion: "12"}
	job := m.offer(platforms(windows, debian))
	if err := job.verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := asEnding(job.decide(t.Context()))
	if e.state != events.Rejected || e.reason != events.PlatformUnsupported || !strings.Contains(e.detail.explanation, "not windows: the fact os is linux; not linux debian from 12: the fact os_version is 11.3") {
		t.Errorf("it is %s (%s): %s", e.state, e.reason, e.detail.explanation)
	}
	m.facts.OSVersion = "12.1"
	if state, reason := m.until(m.offer(platforms(windows, debian)), "decide"); state != "" {
		t.Errorf("one of several is %s (%s)", state, reason)
	}
}

func TestDiskSpaceIsLookedAtBeforeTheDownloadAndAgainBeforeTheStart(t *testing.T) {
	m := newMachine(t)
	free, asked := int64(0), 0
	m.FreeBytes = func(string) (int64, error) { asked++; return free, nil }
	text := "setup"
	m.blobs[events.DigestOf([]byte(text))] = []byte(text)
	needs := func(size events.Bytes) *task {
		t.Helper()
		return m.decided(program(func(p *events.Program) { p.DiskSpace = size }), func(g *given) {
			g.manifest.Files = []events.File{{Path: "setup", Size: int64(len(text)), Mode: 0o644, SHA256: events.DigestOf([]byte(text))}}
		})
	}
	want := func(err error, missing bool) {
		t.Helper()
		if e, ok := errors.AsType[*ending](err); ok != missing || ok && (e.state != events.Failed || e.reason != events.DiskSpaceMissing) {
			t.Errorf("with %d bytes free: %v", free, err)
		}
	}
	if err := needs(0).fetchContent(t.Context()); err != nil || asked != 0 {
		t.Errorf("a program that asks for none: %v, asked %d times", err, asked)
	}
	job := needs(1000)
	free = 1004
	want(job.fetchContent(t.Context()), true)
	free = 1005
	want(job.fetchContent(t.Context()), false)
	free = 1000
	want(job.verifyAgain(t.Context()), false)
	free = 999
	want(job.verifyAgain(t.Context()), true)
	if e := asEnding(job.room(0)); !strings.Contains(e.detail.explanation, "asks for 1KB free") || !strings.Contains(e.detail.answer, "999 bytes") || e.reason.Info().Class != events.Transient {
		t.Errorf("it says %s; %s", e.detail.explanation, e.detail.answer)
	}
	m.FreeBytes = func(string) (int64, error) { return 0, errors.New("the disk is gone") }
	if err := job.room(0); err == nil || asEnding(err).reason != events.AgentFault {
		t.Errorf("a disk that cannot be asked: %v", err)
	}
}
