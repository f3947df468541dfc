package agent

import (
	"errors"
	"strings"
	"testing"

	"chandler/events"
)

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
