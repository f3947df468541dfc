package asuser

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTicketsAreWhatTheUsersOtherProcessesSay(t *testing.T) {
	type process struct{ ticket, session string }
	dir := t.TempDir()
	for i, name := range []string{"old", "new", "newest"} {
		path := filepath.Join(dir, name)
		err := os.WriteFile(path, nil, 0o600)
		if err == nil {
			err = os.Chtimes(path, time.Time{}, time.Unix(int64(1e9+i), 0))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("new", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		processes []process
		want      string
	}{
		"none says any":                   {[]process{{"", "c1"}}, ""},
		"the session's own goes first":    {[]process{{"newest", "c2"}, {"old", "c1"}, {"newest", ""}}, "old"},
		"the one written last goes first": {[]process{{"old", "c1"}, {"new", "c1"}, {"old", "c1"}}, "new"},
		"another session's is one":        {[]process{{"new", "c2"}}, "new"},
		"a file that is gone":             {[]process{{"gone", "c1"}, {"old", "c2"}}, "old"},
		"a link":                          {[]process{{"link", "c1"}}, ""},
		"a folder":                        {[]process{{".", "c1"}}, ""},
		"a name that is too long":         {[]process{{strings.Repeat("./", maxName), "c1"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			proc := t.TempDir()
			for i, p := range c.processes {
				write := fmt.Sprintf("PATH=/bin\x00XDG_SESSION_ID=%s\x00", p.session)
				if p.ticket != "" {
					write += "KRB5CCNAME=FILE:" + dir + "/" + p.ticket + "\x00"
				}
				folder := filepath.Join(proc, fmt.Sprint(i+100))
				err := os.Mkdir(folder, 0o700)
				if err == nil {
					err = os.WriteFile(filepath.Join(folder, "environ"), []byte(write), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			want := c.want
			if want != "" {
				want = filepath.Join(dir, want)
			}
			if got := findTicketIn(proc, os.Getuid(), "c1"); got != want {
				t.Errorf("found %q, want %q", got, want)
			}
			if got := findTicketIn(proc, os.Getuid()+1, "c1"); got != "" {
				t.Errorf("another user finds %q", got)
			}
		})
	}
	if got := findTicketIn(filepath.Join(dir, "nothing"), os.Getuid(), "c1"); got != "" {
		t.Errorf("found %q where nothing is", got)
	}
}
