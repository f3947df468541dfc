package versions

import (
	"cmp"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	debversion "github.com/knqyf263/go-deb-version"
	"pgregory.net/rapid"

	"chandler/events"
)

// Each is older than the next, and than all that follow.
var ascending = []string{
	"0", "0.9~beta", "0.9", "1.0~rc1", "1.0~rc1-2", "1.0~rc2", "1.0", "1.0-1", "1.0-1+b1", "1.0-2", "1.0-10", "1.0+git1", "1.0.1", "1.0.1a", "1.0.1b", "1.2", "1.10",
	"2.9", "2.9-1ubuntu1", "2.9-1ubuntu2", "2.9.1", "3.0~", "3.0", "3.0.0.1", "10.0.22631.4460", "10.0.22631.14460", "18446744073709551616", "18446744073709551617", "1:0.1", "2:0.0.1",
}

func TestOlderVersionsComeBeforeNewerOnes(t *testing.T) {
	for i, a := range ascending {
		for j, b := range ascending {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := Compare(a, b); got != want {
				t.Errorf("compare %s with %s: %d, want %d", a, b, got, want)
			}
		}
	}
}

func TestVersionsThatAreOne(t *testing.T) {
	for _, pair := range [][2]string{{"3.0", "3"}, {"3.0", "3.0.0.0"}, {"2.0.0-1", "2-1"}, {"1.0~rc1", "1~rc1"}, {"1.02", "1.2"}, {"0:1", "1"}, {"1", "1-0"}, {"0.0", "0"}} {
		if Compare(pair[0], pair[1]) != 0 || Compare(pair[1], pair[0]) != 0 {
			t.Errorf("%s and %s differ: %d", pair[0], pair[1], Compare(pair[0], pair[1]))
		}
	}
}

func TestSatisfies(t *testing.T) {
	for _, c := range []struct {
		name, version, constraint string
		want, ok                  bool
	}{
		{"every version meets no condition", "2.9", "", true, true},
		{"a bare version is that version", "2.9", "2.9", true, true},
		{"a bare version is no other one", "2.9.1", "2.9", false, true},
		{"a packager's revision is another version", "2.9-1", "= 2.9", false, true},
		{"trailing zeros say nothing", "3.0.0", "= 3.0", true, true},
		{"a pre-release is below the release", "3.0~rc1", "< 3.0", true, true},
		{"the release is not below itself", "3.0", "< 3.0", false, true},
		{"numbers count as numbers", "2.10", "> 2.9", true, true},
		{"at most includes the version", "3.0", "<= 3.0", true, true},
		{"at least includes the version", "3.0", ">=3.0", true, true},
		{"at least leaves out what is older", "2.9", ">= 3.0", false, true},
		{"blanks do not matter", "2.9", "  <3.0 ", true, true},
		{"an unknown operator is refused", "2.9", "~> 3.0", false, false},
		{"a doubled operator is refused", "2.9", "== 3.0", false, false},
		{"an operator alone is refused", "2.9", "<", false, false},
		{"blanks alone are refused", "2.9", "  ", false, false},
		{"two conditions are refused", "2.9", "> 2, < 3", false, false},
		{"a version too long is refused", "2.9", "< " + strings.Repeat("1", 65), false, false},
		{"what is no version meets nothing", "", "< 3.0", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Satisfies(c.version, c.constraint)
			if got != c.want || (err == nil) != c.ok {
				t.Errorf("%q %q: %v, %v", c.version, c.constraint, got, err)
			}
		})
	}
}

func drawVersion(t *rapid.T, label string) string {
	part := rapid.StringMatching(`[0-9]{1,3}(\.[0-9]{1,2}){0,3}([a-z+~.][a-z0-9+~.]{0,3})?(-[0-9a-z+~.]{1,3})?`)
	return rapid.OneOf(part, rapid.SampledFrom(ascending)).Draw(t, label)
}

func TestTheOrderIsOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawVersion(t, "a"), drawVersion(t, "b"), drawVersion(t, "c")
		if Compare(a, b) != -Compare(b, a) || Compare(a, a) != 0 {
			t.Fatalf("%s and %s: %d and %d", a, b, Compare(a, b), Compare(b, a))
		}
		all := []string{a, b, c}
		slices.SortFunc(all, Compare)
		if Compare(all[0], all[1]) > 0 || Compare(all[1], all[2]) > 0 || Compare(all[0], all[2]) > 0 {
			t.Fatalf("no order: %q", all)
		}
	})
}

// Two readings of Debian's order agree wherever no zeros at the end are in play.
func TestTheOrderIsDebians(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawVersion(t, "a"), drawVersion(t, "b")
		if strings.Contains(a, ".0") || strings.Contains(b, ".0") || max(len(a), len(b)) > 18 { // zeros, and numbers that the other reading cannot hold
			t.Skip()
		}
		x, errX := debversion.NewVersion(a)
		y, errY := debversion.NewVersion(b)
		if errX != nil || errY != nil {
			t.Skip()
		}
		if got, want := Compare(a, b), cmp.Compare(x.Compare(y), 0); got != want {
			t.Fatalf("compare %s with %s: %d, Debian says %d", a, b, got, want)
		}
	})
}

func TestDpkgAgrees(t *testing.T) {
	if _, err := exec.LookPath("dpkg"); err != nil {
		if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
			t.Fatal("no dpkg here: it comes with Debian")
		}
		t.Skip("no dpkg here: it comes with Debian")
	}
	for i := range len(ascending) - 1 {
		if a, b := ascending[i], ascending[i+1]; exec.Command("dpkg", "--compare-versions", a, "lt", b).Run() != nil {
			t.Errorf("dpkg does not find %s older than %s", a, b)
		}
	}
}

func FuzzSatisfies(f *testing.F) {
	for _, v := range ascending {
		f.Add(v, "<= "+v)
	}
	f.Add("1.0", " > 2 ")
	f.Fuzz(func(t *testing.T, version, constraint string) {
		if Compare(version, constraint) != -Compare(constraint, version) {
			t.Fatalf("%q and %q have no order", version, constraint)
		}
		_, err := Satisfies(version, constraint)
		if valid := events.ValidVersion(version) == nil && Valid(constraint) == nil; valid != (err == nil) {
			t.Fatalf("%q %q: valid %v, %v", version, constraint, valid, err)
		}
	})
}
