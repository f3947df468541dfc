package main

import (
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
)

// lendingFleet has two machines, and leases of them.
func lendingFleet(t *testing.T) *fakeFleet {
	f := newFakeFleet(t)
	f.set(func() {
		f.agents = []events.AgentView{agentNamed("agent0001", "ws-1", "oslo"), agentNamed("agent0002", "ws-2", "oslo")}
		f.leases = []events.LeaseNotice{
			lentTo("aaaaaaaa1", "corp-reader", "agent0001", "job1aaaaaaa", "smb://files.example/apps/x"), lentTo("aaaaaaaa2", "corp-reader", "agent0002", "job2bbbbbbb", "smb://files.example/apps/x"),
			lentTo("bbbbbbbb3", "corp-other", "agent0001", "job1aaaaaaa", ""),
		}
	})
	return f
}

func TestLeasesAreListedByWhomAndWhatFor(t *testing.T) {
	f := lendingFleet(t)
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"all":                 {nil, []string{"aaaaaaaa1", "aaaaaaaa2", "bbbbbbbb3"}},
		"of a machine":        {[]string{"--agent", "ws-1"}, []string{"aaaaaaaa1", "bbbbbbbb3"}},
		"of an account":       {[]string{"--account", "corp-reader"}, []string{"aaaaaaaa1", "aaaaaaaa2"}},
		"of a job's start":    {[]string{"--job", "job2"}, []string{"aaaaaaaa2"}},
		"of all that is said": {[]string{"--job", "job1", "--account", "corp-other", "--agent", "agent0001"}, []string{"bbbbbbbb3"}},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, _ := must(t, f, "", append([]string{"lease", "ls", "-o", "name"}, c.args...)...)
			if diff := cmp.Diff(c.want, strings.Fields(stdout)); diff != "" {
				t.Error(diff)
			}
		})
	}
	stdout, _ := must(t, f, "", "lease", "ls", "--agent", "ws-2")
	for _, says := range []string{"corp-reader", "ws-2", "agent0002", `\\files.example\apps\x`, "2026-12-01 09:10:00 CET"} {
		if !strings.Contains(stdout, says) {
			t.Errorf("it does not say %q:\n%s", says, stdout)
		}
	}
	stdout, _ = must(t, f, "", "lease", "ls", "-o", "csv")
	if rows, err := csv.NewReader(strings.NewReader(stdout)).ReadAll(); err != nil || len(rows) != 4 || !strings.Contains(stdout, "smb://files.example/apps/x") {
		t.Errorf("%v: %s", err, stdout)
	}
	stdout, _ = must(t, f, "", "lease", "ls", "-o", "json")
	var rows []leaseRow
	if err := json.Unmarshal([]byte(stdout), &rows); err != nil || len(rows) != 3 || rows[1].Host != "ws-2" || rows[1].Job != "job2bbbbbbb" {
		t.Errorf("%v: %s", err, stdout)
	}
	if code, _, stderr := command(t, f.app, "", "lease", "ls", "--job", "job"); code != 1 || !strings.Contains(stderr, "job1aaaaaaa\n  job2bbbbbbb") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestLeasesAreWithdrawnAfterAQuestion(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		code int
		says string
		want []events.LeaseQuery
	}{
		"one, without a question":           {[]string{"bbbb"}, 0, "1 lease is withdrawn", []events.LeaseQuery{{Lease: "bbbbbbbb3"}}},
		"one by what it is for":             {[]string{"--account", "corp-other"}, 0, "1 lease is withdrawn", []events.LeaseQuery{{Account: "corp-other"}}},
		"several, without --yes":            {[]string{"--account", "corp-reader"}, 1, "This withdraws 2 leases. Say --yes", nil},
		"several, with --yes":               {[]string{"--account", "corp-reader", "--yes"}, 0, "2 leases are withdrawn", []events.LeaseQuery{{Account: "corp-reader"}}},
		"several by their ids":              {[]string{"aaaaaaaa1", "bbbbbbbb3", "bbbbbbbb", "--yes"}, 0, "2 leases are withdrawn", []events.LeaseQuery{{Lease: "aaaaaaaa1"}, {Lease: "bbbbbbbb3"}}},
		"all of a job, by its id's start":   {[]string{"--job", "job1", "--yes"}, 0, "2 leases are withdrawn", []events.LeaseQuery{{Job: "job1aaaaaaa"}}},
		"all of a machine":                  {[]string{"--agent", "ws-1", "--yes"}, 0, "2 leases are withdrawn", []events.LeaseQuery{{Agent: "agent0001"}}},
		"none that agrees":                  {[]string{"--account", "nobody"}, 0, "none", nil},
		"a beginning of several":            {[]string{"aaaa", "--yes"}, 1, "several leases begin with \"aaaa\"", nil},
		"one that is not there":             {[]string{"cccc"}, 1, "chandler lease ls", nil},
		"an empty id":                       {[]string{"", "--yes"}, 1, "chandler lease ls", nil},
		"nothing said":                      {[]string{"--yes"}, 1, "say which leases", nil},
		"ids and flags":                     {[]string{"aaaaaaaa1", "--account", "corp-reader"}, 1, "say which leases", nil},
		"a machine that is not there":       {[]string{"--agent", "nobody"}, 1, "chandler agent ls", nil},
		"an id of the other form of a name": {[]string{"--agent", "agent0002"}, 0, "1 lease is withdrawn", []events.LeaseQuery{{Agent: "agent0002"}}},
	} {
		t.Run(name, func(t *testing.T) {
			f := lendingFleet(t)
			code, stdout, stderr := command(t, f.app, "", append([]string{"lease", "revoke"}, c.args...)...)
			if code != c.code || !strings.Contains(stderr, c.says) {
				t.Errorf("exit code %d, want %d saying %q: %s%s", code, c.code, c.says, stdout, stderr)
			}
			f.set(func() {
				if diff := cmp.Diff(c.want, f.revocations); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestLeasesAreOfferedToAShell(t *testing.T) {
	f := lendingFleet(t)
	stdout, _ := must(t, f, "", "__complete", "lease", "revoke", "bbbbbbbb3", "")
	if !strings.Contains(stdout, "aaaaaaaa\tcorp-reader to agent0001") || strings.Contains(stdout, "corp-other") {
		t.Errorf("got %s", stdout)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"lease", "ls", "--agent", ""}, "ws-1"}, {[]string{"account", "set", "--method", ""}, events.ByClientCertificate},
		{[]string{"account", "test", "corp", "--agent", ""}, "ws-2"}, {[]string{"package", "access", "hello", "--agent", ""}, "ws-1"},
	} {
		if stdout, _ := must(t, f, "", append([]string{"__complete"}, c.args...)...); !strings.Contains(stdout, c.want) {
			t.Errorf("%q: %s", c.args, stdout)
		}
	}
}
