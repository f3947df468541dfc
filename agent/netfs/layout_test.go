package netfs

import (
	"strings"
	"testing"

	"chandler/events/resource"
)

func TestAPathIsAnAddress(t *testing.T) {
	o := newOrder([]string{"smb://files/apps/p/*", "https://www.example/pub/a.deb"})
	for path, want := range map[string]struct {
		address  string
		standing standing
	}{
		"files/apps":                       {"smb://files/apps", above},
		"FILES/Apps/P/x":                   {"smb://files/Apps/P/x", named},
		"files/apps/p":                     {"smb://files/apps/p", named},
		"files/apps/p2":                    {"smb://files/apps/p2", foreign},
		"files/apps/p/a%20b#?c":            {"smb://files/apps/p/a%2520b%23%3Fc", named},
		"smb:/files/apps/p/x":              {"smb://files/apps/p/x", named},
		"https:/www.example/pub":           {"https://www.example/pub", above},
		"https:/www.example:443/pub/a.deb": {"https://www.example/pub/a.deb", named},
		"https:/www.example/PUB/a.deb":     {"https://www.example/PUB/a.deb", foreign},
		"www.example/pub/a.deb":            {"smb://www.example/pub/a.deb", foreign},
	} {
		p, ok := place{}, true
		for name := range strings.SplitSeq(path, "/") {
			if p, ok = p.child(name); !ok {
				t.Fatalf("%s: nothing at %s", path, name)
			}
		}
		if got := p.resource().String(); got != want.address || o.standing(p) != want.standing {
			t.Errorf("%s is %s, which is %d", path, got, o.standing(p))
		}
	}
	for _, names := range [][]string{{"fi les"}, {"http:"}, {":"}, {"a:b:c"}, {"u@files"}, {"*"}, {"files", `a\b`}, {"files", "a\nb"}, {"files", "\xff"}, {"files", strings.Repeat("a", resource.Max)}} {
		p, ok := place{}, true
		for _, name := range names {
			p, ok = p.child(name)
		}
		if ok {
			t.Errorf("%q is %+v", names, p)
		}
	}
}

// FuzzChild looks for names that lead anywhere but one step down.
func FuzzChild(f *testing.F) {
	f.Add("files", "apps", "a b")
	f.Add("https:", "www.example", "%2e%2e")
	f.Add("..", ".", "a/b")
	f.Fuzz(func(t *testing.T, first, second, third string) {
		p := place{}
		for _, name := range []string{first, second, third} {
			next, ok := p.child(name)
			if !ok {
				return
			}
			if p.path != "" || p.host != "" && p.scheme != "" {
				r := next.resource()
				again, err := resource.Parse(r.String())
				if err != nil || again != r || r.Host != p.host || !strings.HasPrefix(r.Path, p.path+"/") || strings.Count(r.Path, "/") != strings.Count(p.path, "/")+1 {
					t.Fatalf("%q below %+v is %+v: %v", name, p, next, err)
				}
			}
			p = next
		}
	})
}
