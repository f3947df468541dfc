package execute

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestWhatSaysThatAUserLacksRights(t *testing.T) {
	for name, c := range map[string]struct {
		code   int
		output string
		want   string // "": it does not
	}{
		"dpkg as a user":                      {2, "dpkg: error: requested operation requires superuser privilege\n", "dpkg: error: requested operation requires superuser privilege"},
		"apt as a user":                       {100, "E: Could not open lock file /var/lib/dpkg/lock-frontend - open (13: Permission denied)\nE: Unable to acquire the dpkg frontend lock, are you root?\n", "E: Unable to acquire the dpkg frontend lock, are you root?"},
		"a shell that may not write":          {1, "+ echo x\nsh: 1: cannot create /usr/bin/x: Permission denied\ngiving up\n", "sh: 1: cannot create /usr/bin/x: Permission denied"},
		"chown":                               {1, "chown: changing ownership of 'x': Operation not permitted", "chown: changing ownership of 'x': Operation not permitted"},
		"Windows asks for elevation":          {740, "", "exit code 740"},
		"access denied as a 32-bit number":    {2147942405, "", "exit code 2147942405"},
		"access denied as a negative number":  {-2147024891, "", "exit code -2147024891"},
		"another failure":                     {1, "no space left on device\n", ""},
		"the words of a success are not read": {1, "permissions set\nroot found\n", ""},
		"nothing was said":                    {1, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "output")
			if err := os.WriteFile(path, []byte(c.output), 0o600); err != nil {
				t.Fatal(err)
			}
			operation, lacks := LacksRights(c.code, path)
			if operation != c.want || lacks != (c.want != "") {
				t.Fatalf("got %q, %v; want %q", operation, lacks, c.want)
			}
		})
	}
}

func TestOnlyTheEndOfAnOutputIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output")
	early := "x: Permission denied\n" + strings.Repeat("y\n", lackingTail)
	if err := os.WriteFile(path, []byte(early), 0o600); err != nil {
		t.Fatal(err)
	}
	if operation, lacks := LacksRights(1, path); lacks {
		t.Errorf("what was long past counts: %q", operation)
	}
	if err := os.WriteFile(path, []byte("permission denied: "+strings.Repeat("z", 10*lackingLine)), 0o600); err != nil {
		t.Fatal(err)
	}
	if operation, lacks := LacksRights(1, path); !lacks || len(operation) > lackingLine+len("…") {
		t.Errorf("got %v and %d bytes", lacks, len(operation))
	}
	if _, lacks := LacksRights(1, filepath.Join(t.TempDir(), "none")); lacks {
		t.Error("an output that is not there says something")
	}
}

func TestASmallCodeSaysThatAUserLacksRightsOnWindowsAlone(t *testing.T) {
	if _, lacks := LacksRights(5, filepath.Join(t.TempDir(), "none")); lacks != (runtime.GOOS == "windows") {
		t.Errorf("exit code 5: %v", lacks)
	}
}
