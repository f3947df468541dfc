package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTheUnitIsTheOneThatIsDeployed(t *testing.T) {
	deployed, err := os.ReadFile("../../../deploy/systemd/chandler-agent.service")
	if err != nil {
		t.Fatal(err)
	}
	s := systemd{program: "/usr/local/bin/chandler-agent", config: "/etc/chandler/agent.yaml"}
	unit, err := s.unit()
	if err != nil {
		t.Fatal(err)
	}
	if unit != string(deployed) {
		t.Error("chandler-agent.service here and in deploy/systemd differ: copy the one that is right over the other")
	}
	for _, line := range []string{"Restart=always", "KillMode=process", "Delegate=yes"} {
		if !strings.Contains(unit, "\n"+line+"\n") {
			t.Errorf("the unit lacks %s", line)
		}
	}
}

func TestTheUnitRunsTheProgramWhereverItIs(t *testing.T) {
	for name, c := range map[string]struct{ program, config, want string }{
		"elsewhere":   {"/opt/chandler/chandler-agent", "/srv/a.yaml", "ExecStart=/opt/chandler/chandler-agent run --config /srv/a.yaml\n"},
		"odd names":   {"/opt/my agent/100%", `/srv/"$HOME".yaml`, `ExecStart="/opt/my agent/100%%" run --config "/srv/\"$$HOME\".yaml"` + "\n"},
		"a line more": {"/opt/a\nUser=nobody", "/srv/a.yaml", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := systemd{program: c.program, config: c.config}
			unit, err := s.unit()
			if c.want == "" {
				if err == nil {
					t.Errorf("taken:\n%s", unit)
				}
				return
			}
			if err != nil || !strings.Contains(unit, "\n"+c.want) {
				t.Errorf("%v\n%s", err, unit)
			}
		})
	}
}

func TestSystemdIsToldOnlyWhatIsNew(t *testing.T) {
	var told []string
	s := systemd{root: t.TempDir(), program: "/usr/local/bin/chandler-agent", config: "/etc/chandler/agent.yaml",
		systemctl: func(args ...string) error { told = append(told, args[0]); return nil }}
	for range 2 {
		if _, err := s.install(); err != nil {
			t.Fatal(err)
		}
	}
	if changed, err := s.install(); changed || err != nil {
		t.Errorf("again: %v, %v", changed, err)
	}
	s.config = "/etc/other.yaml"
	if changed, err := s.install(); !changed || err != nil {
		t.Errorf("another configuration: %v, %v", changed, err)
	}
	for _, want := range []bool{true, false} {
		if changed, err := s.uninstall(); changed != want || err != nil {
			t.Errorf("uninstall: %v, %v", changed, err)
		}
	}
	if want := []string{"daemon-reload", "enable", "enable", "enable", "daemon-reload", "enable", "disable", "daemon-reload"}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}

func TestAnImageIsInstalledWithoutStartingAnything(t *testing.T) {
	root := t.TempDir()
	file, state := configure(t, "")
	for _, want := range []string{"must enrol", "nothing changed"} {
		out, err := said(t, "install", "-c", file, "--root", root)
		if err != nil || !strings.Contains(out, want) {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	unit := filepath.Join(root, "etc/systemd/system/multi-user.target.wants/chandler-agent.service")
	data, err := os.ReadFile(unit) // through the link
	if err != nil || !strings.Contains(string(data), "ExecStart=/usr/local/bin/chandler-agent run --config "+file+"\n") {
		t.Errorf("%v\n%s", err, data)
	}
	if _, err := os.Stat(filepath.Join(root, "usr/local/bin/chandler-agent")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(state); err == nil {
		t.Error("the image holds an identity")
	}
	for _, want := range []string{"uninstalled", "not installed"} {
		out, err := said(t, "uninstall", "--root", root)
		if err != nil || !strings.Contains(out, want) {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if _, err := os.Lstat(unit); err == nil {
		t.Error("the unit is still there")
	}
}
