package netfs

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/source"
	"chandler/agent/source/sambatest"
	"chandler/agent/source/smbsource"
)

func TestAProgramReadsFromARealServerAsTheAccountThatWasLent(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 1<<20)
	server := sambatest.New(t, sambatest.Options{Shares: []sambatest.Share{{Name: "software"}, {Name: "private", Users: []string{"boss"}}}})
	server.User("reader", "sesame")
	server.User("boss", "other")
	server.Write("software", "p/setup.sh", []byte("#!/bin/sh\necho installed\n"))
	server.Write("software", "p/My App/big", []byte(big))
	server.Write("software", "p/denied", []byte("no"))
	server.Write("private", "a", []byte("no"))
	server.Deny("software", "p/denied", "reader")

	g := newRig(t, nil, server.Address("software", "p"), server.Address("private", "a"))
	smb := smbsource.New(smbsource.Options{})
	g.Sources = map[string]source.Source{"smb": smb}
	g.user = "reader"
	f := mountRig(t, g)
	t.Cleanup(func() { smb.Close() })
	at := server.Host()
	for script, want := range map[string]string{
		"ls software/p":                       "My App\ndenied\nsetup.sh",
		"software/p/setup.sh":                 "installed",
		"sha256sum < 'software/p/My App/big'": hexSum(big) + "  -",
		"cat software/p/denied":               "cat: software/p/denied: Permission denied!",
		"cat software/p/missing":              "cat: software/p/missing: No such file or directory!",
		"cat private/a":                       "cat: private/a: Permission denied!",
		"cat software/other":                  "cat: software/other: Permission denied!",
	} {
		if got := run(t, f, g, "cd "+at+"; "+script); got != want {
			t.Errorf("%s: %q", script, got)
		}
	}
	told := g.reasons()
	slices.Sort(told)
	want := []string{
		"credential_denied " + server.Address("software", "other"), "network_access_denied " + server.Address("private", "a"),
		"network_access_denied " + server.Address("software", "p/denied"), server.Address("software", "p"), "source_not_found " + server.Address("software", "p/missing"),
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Error(diff)
	}
	if readers := server.Readers("software", "p/setup.sh"); len(readers) == 0 || slices.ContainsFunc(readers, func(u string) bool { return u != "reader" }) {
		t.Errorf("read by %q", readers)
	}
}
