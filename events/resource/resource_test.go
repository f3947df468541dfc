package resource

import (
	"strings"
	"testing"
)

func TestAResourceHasOneSpelling(t *testing.T) {
	for text, want := range map[string]struct{ address, shown string }{
		`smb://Files.Example:445/software/My App/`:        {"smb://files.example/software/My%20App", `\\files.example\software\My App`},
		`\\FILES\apps\setup.exe`:                          {"smb://files/apps/setup.exe", `\\files\apps\setup.exe`},
		`smb://files.example:1445/s/a%20b`:                {"smb://files.example:1445/s/a%20b", `\\files.example:1445\s\a b`},
		`https://www.example:443/pub/a.deb`:               {"https://www.example/pub/a.deb", "https://www.example/pub/a.deb"},
		`file:///srv/software`:                            {"file:///srv/software", "file:///srv/software"},
		`file://localhost/srv/software`:                   {"file:///srv/software", "file:///srv/software"},
		`file://files/apps/x`:                             {"file://files/apps/x", `\\files\apps\x`},
		`smb://[2001:db8::1]/s/x`:                         {"smb://[2001:db8::1]/s/x", `\\[2001:db8::1]\s\x`},
		"smb://files/\u00e5pen/" + strings.Repeat("a", 9): {"smb://files/%C3%A5pen/aaaaaaaaa", `\\files\` + "\u00e5pen" + `\aaaaaaaaa`},
	} {
		r, err := Parse(text)
		if err != nil || r.String() != want.address || r.Shown() != want.shown {
			t.Errorf("%s: %s, %s, %v", text, r, r.Shown(), err)
			continue
		}
		if again, err := Parse(r.String()); err != nil || again != r {
			t.Errorf("%s is read back as %v, %v", r, again, err)
		}
	}
}

func TestWhatIsNoResourceIsRefusedWithoutQuotingASecret(t *testing.T) {
	for _, text := range []string{
		"", "x", "http://files/x", "smb://files", "smb://files/", "smb:///x", "https://h", "smb://u:hunter2@files/x", "smb://files/x?sig=hunter2", "smb://files/x#hunter2",
		"smb://files/a/../b", "smb://files/./b", "smb://files//b", `smb://files/a\b`, "smb://files/a%5Cb", "smb://files/a%2f..%2fb", "smb://*/x", "smb://fi les/x", "smb:files/x", `\\`, `\\files`,
		`\\files\`, `\\?\C:\x`, `\\.\pipe\x`, `\\files/apps`, `\\files\a\..\b`, "smb://files/a\nb", "smb://files/a%0ab", "smb://files/" + strings.Repeat("a", Max), "smb://f\u00efles/x", "smb://files/\xff", "smb://files/%ff",
		"smb://files/" + strings.Repeat("%20", 600), "ftp://h/x", "smb://h%2fx/y",
	} {
		r, err := Parse(text)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v, %v", text, r, err)
		}
	}
}

func TestAPatternCoversItselfAndAllBelow(t *testing.T) {
	for _, c := range []struct {
		pattern, address string
		want             bool
	}{
		{"smb://files/software/*", "smb://files/software", true},
		{"smb://files/software/*", "smb://files/software/a/b", true},
		{"smb://files/software", "smb://files/software/a/b", true},
		{"smb://files/Software", "smb://FILES/sOFTWARE/a", true},
		{`\\files\software`, "smb://files/software/a", true},
		{"smb://files/software", "smb://files/software2", false},
		{"smb://files/software/a", "smb://files/software", false},
		{"smb://files/software", "smb://files2/software/a", false},
		{"smb://files/software", "smb://files:1445/software/a", false},
		{"https://files/software", "smb://files/software/a", false},
		{"https://files/Software", "https://files/software/a", false},
		{"https://files/a/*", "https://files/a/b%20c", true},
		{"smb://files/software/../x", "smb://files/x", false},
		{"smb://files/*/x", "smb://files/a/x", false},
		{"smb://files/software", "nonsense", false},
	} {
		if got := Covers(c.pattern, c.address); got != c.want {
			t.Errorf("%s covers %s: %v", c.pattern, c.address, got)
		}
	}
	if got := Longest([]string{"smb://f/a", "smb://f/a/b/*", "smb://f/a/b/c/d", "smb://g/a/b/c"}, "smb://f/a/b/c"); got != "smb://f/a/b/*" {
		t.Errorf("the longest is %q", got)
	}
	if got := Longest([]string{"smb://f/a"}, "smb://f/b"); got != "" {
		t.Errorf("the longest is %q", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"smb://files/a%20b", `\\files\a`, "file:///x", "https://h:443/x/*", "smb://[::1]:445/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(r.String())
		if err != nil || again != r {
			t.Fatalf("%q is %q, read back as %q: %v", text, r, again, err)
		}
		if !r.Within(r) || strings.Contains(r.Path, "..") && !plain(r.Path) {
			t.Fatalf("%q", r)
		}
	})
}

func plain(path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		if part == ".." {
			return false
		}
	}
	return true
}
