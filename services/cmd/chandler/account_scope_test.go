package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"chandler/events"
)

func TestOnlyWhatAgentsReadIsAResourceOfAnAccount(t *testing.T) {
	for _, good := range []string{"smb://files/x", `\\files\x`, "https://www.example/x", "HTTPS://www.example/x", "file:///x"} {
		if err := checkReadable(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"s3://bucket/hunter2", "oci://registry/hunter2", "http://hunter2/x", "hunter2", ""} {
		err := checkReadable(bad)
		if err == nil || !strings.Contains(err.Error(), "smb://, https:// or file://") || strings.Contains(err.Error(), "s3") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestACollectionThatIsNotThereIsToldOf(t *testing.T) {
	f := newFakeFleet(t)
	f.set(func() { f.collection.Name = "lab" })
	set := []string{"account", "set", "lab-web", "--kind", "network-access", "--user", "lab", "--resource", "https://www.example/lab", "--collection"}
	if _, stderr := must(t, f, "secret", append(set, "lab")...); strings.Contains(stderr, "collection") {
		t.Errorf("of one that is there: %s", stderr)
	}
	if _, stderr := must(t, f, "secret", append(set, "lab,lba")...); !strings.Contains(stderr, "WARNING: there is no collection lba:") {
		t.Errorf("of one that is not: %s", stderr)
	}
}

func TestASecretsFileThatOthersReadIsToldOf(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes say nothing about who reads a file on Windows")
	}
	f := newFakeFleet(t)
	file := filepath.Join(t.TempDir(), "reader.secret")
	for mode, warns := range map[os.FileMode]bool{0o600: false, 0o644: true} {
		if err := os.WriteFile(file, []byte("next"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		_, stderr := must(t, f, "", "account", "rotate", "corp-reader", "--secret-file", file)
		if strings.Contains(stderr, "WARNING: "+file+" can be read by others (mode 0644): chmod 600") != warns {
			t.Errorf("%o: %s", mode, stderr)
		}
	}
}

func TestTheListOfAccountsIsShortAndSaysWhatIsWell(t *testing.T) {
	f := newFakeFleet(t)
	f.set(func() {
		f.accounts = []events.AccountView{{AccountNotice: events.AccountNotice{Account: "corp-reader", Resources: []string{"smb://files/a", "smb://files/b", "smb://files/c"}, Version: 1}}}
	})
	stdout, _ := must(t, f, "", "account", "ls")
	if !strings.Contains(stdout, "smb://files/a and 2 more") || strings.Contains(stdout, "smb://files/b") || !strings.Contains(stdout, "  ok  ") {
		t.Errorf("the table: %s", stdout)
	}
	for _, form := range []string{"wide", "csv"} {
		if stdout, _ := must(t, f, "", "account", "ls", "-o", form); !strings.Contains(stdout, "smb://files/a, smb://files/b, smb://files/c") {
			t.Errorf("%s: %s", form, stdout)
		}
	}
}
