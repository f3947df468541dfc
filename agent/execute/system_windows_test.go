package execute

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/windows"
)

func TestAUserIsGivenHisPartOfARun(t *testing.T) {
	own, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		t.Fatal(err)
	}
	account, domain, _, err := own.User.Sid.LookupAccount("")
	if err != nil {
		t.Fatal(err)
	}
	for _, writable := range []bool{false, true} {
		temporary, content := t.TempDir(), t.TempDir()
		if err := os.WriteFile(filepath.Join(content, "setup.exe"), []byte("MZ"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := giveDirectories(domain+`\`+account, temporary, content, writable); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(temporary, "file"), nil, 0o600); err != nil {
			t.Errorf("temporary files: %v", err)
		}
		if data, err := os.ReadFile(filepath.Join(content, "setup.exe")); err != nil || string(data) != "MZ" {
			t.Errorf("content: %q, %v", data, err)
		}
	}
	if err := giveDirectories(`NOWHERE\nobody`, t.TempDir(), "", false); err == nil {
		t.Error("an unknown user is given something")
	}
}
