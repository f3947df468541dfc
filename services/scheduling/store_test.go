package scheduling

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSupersedes(t *testing.T) {
	record := func(revision uint64, order string, removed bool) deploymentRecord {
		r := deploymentRecord{Removed: removed}
		r.Deployment, r.Revision, r.Order = "hello", revision, order
		return r
	}
	for name, c := range map[string]struct {
		new, old deploymentRecord
		found    bool
		says     string // "" accepted
	}{
		"the first":                              {new: record(1, "a", false)},
		"a higher revision":                      {new: record(3, "b", false), old: record(1, "a", false), found: true},
		"the same order again":                   {new: record(1, "a", false), old: record(1, "a", false), found: true, says: errKeep.Error()},
		"another order with the same revision":   {new: record(1, "b", false), old: record(1, "a", false), found: true, says: "sign revision 2"},
		"a lower revision":                       {new: record(1, "b", false), old: record(2, "a", false), found: true, says: "sign revision 3"},
		"the same order after it was removed":    {new: record(1, "a", false), old: record(1, "a", true), found: true, says: "revision 2 or higher"},
		"a higher revision after it was removed": {new: record(2, "b", false), old: record(1, "a", true), found: true},
	} {
		t.Run(name, func(t *testing.T) {
			err := supersedes(c.new, c.old, c.found)
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %q", err, c.says)
			}
		})
	}
}

func TestIDSetIsASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		numbers := rapid.SliceOf(rapid.IntRange(0, 300))
		build := func(name string) (idSet, map[int]bool) {
			var s idSet
			model := map[int]bool{}
			for i, n := range numbers.Draw(t, name) {
				in := i%3 != 0
				s = s.set(n, in)
				if model[n] = in; !in {
					delete(model, n)
				}
			}
			return s, model
		}
		a, modelA := build("a")
		b, modelB := build("b")
		limit := rapid.IntRange(0, 20).Draw(t, "limit")
		if a.count() != len(modelA) {
			t.Fatalf("count %d, want %d", a.count(), len(modelA))
		}
		var want []int
		for n := range 301 {
			if a.has(n) != modelA[n] {
				t.Fatalf("has(%d) is %v", n, a.has(n))
			}
			if modelA[n] && !modelB[n] && len(want) < limit {
				want = append(want, n)
			}
		}
		if diff := cmp.Diff(want, a.firstNotIn(b, limit)); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzReleaseKey(f *testing.F) {
	for _, seed := range []string{"hello.1.1.0", "hello.1.1", "a.b.c.d", "hello.1.1.-1", "hello.01.1.00", "...."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rest string) {
		k, err := parseReleaseKey(rest)
		if err != nil {
			return
		}
		again, err := parseReleaseKey(strings.TrimPrefix(k.String(), kindRelease+"."))
		if err != nil || again != k {
			t.Errorf("%q is %+v, written and read again %+v (%v)", rest, k, again, err)
		}
	})
}

// FuzzDeploymentKeys throws any key and value of the bucket at a replica's memory: whoever wrote it, the
// replica goes on.
func FuzzDeploymentKeys(f *testing.F) {
	f.Add("deployment.hello", []byte(`{"deployment":"hello","revision":1,"envelope":"e30="}`))
	f.Add("deployment.hello", []byte(`{"removed":true}`))
	f.Add("draft.hello", []byte(`{"deployment":"hello","revision":1,"envelope":"e30="}`))
	f.Add("draft.hello", []byte(`{"removed":true}`))
	f.Add("trust", []byte(`{"version":1,"envelope":"e30="}`))
	f.Add("release.hello.1.1.0", []byte(`{"agents":["agent001"]}`))
	f.Add("package."+manifest, []byte(`{"package":"hello"}`))
	f.Add("other", []byte(`null`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		s := offline()
		s.applyDeploymentKey(key, value)
		s.applyDeploymentKey(key, nil)
		if len(s.deployments)+len(s.drafts)+len(s.packages) > 0 {
			t.Errorf("%q was deleted and is still there", key)
		}
	})
}
