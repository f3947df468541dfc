package detect

import (
	"cmp"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseConstraint(t *testing.T) {
	tests := []struct {
		name, text string
		want       Constraint
		ok         bool
	}{
		{"nothing is any version", "  ", Constraint{}, true},
		{"a bare version is meant exactly", "2.10-3", Constraint{"=", "2.10-3"}, true},
		{"blanks around the operator do not matter", " >=  1:2.10~rc1+b2 ", Constraint{">=", "1:2.10~rc1+b2"}, true},
		{"no blank is needed", "<2", Constraint{"<", "2"}, true},
		{"an unknown operator is refused", "~> 2", Constraint{}, false},
		{"a doubled operator is refused", "== 2", Constraint{}, false},
		{"an operator alone is refused", ">=", Constraint{}, false},
		{"two conditions are refused", ">= 2, < 3", Constraint{}, false},
		{"other characters are refused", "2.10é", Constraint{}, false},
		{"a number that no comparison can hold is refused", "1234567890123456789", Constraint{}, false},
		{"a long text is refused", "1" + strings.Repeat(".1", 100), Constraint{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseConstraint(tt.text)
			if got != tt.want || (err == nil) != tt.ok {
				t.Errorf("got %+v, %v, want %+v, ok %v", got, err, tt.want, tt.ok)
			}
		})
	}
}

func TestConstraintMet(t *testing.T) {
	order := map[string]map[int]bool{ // operator, order of the installed version, met
		"=":  {-1: false, 0: true, 1: false},
		">=": {-1: false, 0: true, 1: true},
		">":  {-1: false, 0: false, 1: true},
		"<=": {-1: true, 0: true, 1: false},
		"<":  {-1: true, 0: false, 1: false},
		"":   {-1: true, 0: true, 1: true},
	}
	for op, cases := range order {
		for result, want := range cases {
			got, err := Constraint{op, "1"}.met("2", func(string, string) (int, error) { return result, nil })
			if err != nil || got != want {
				t.Errorf("operator %q with order %d: %v, %v, want %v", op, result, got, err, want)
			}
		}
	}
}

func TestCompareDotted(t *testing.T) {
	tests := []struct {
		installed, wanted string
		want              int
	}{
		{"10.0.22631.4460", "10.0.22631.4460", 0},
		{"10.0", "10.0.0.0", 0},
		{"10.0.2", "10.0.10", -1},
		{"18446744073709551615.1", "18446744073709551615.0", 1},
	}
	for _, tt := range tests {
		if got, err := compareDotted(tt.installed, tt.wanted); err != nil || got != tt.want {
			t.Errorf("compare %s with %s: %d, %v, want %d", tt.installed, tt.wanted, got, err, tt.want)
		}
	}
	if _, err := compareDotted("1.2b", "1"); err == nil {
		t.Error("1.2b was compared")
	}
}

// The versions that comparisons get wrong: epochs, tildes, carets, letters
// against digits, leading zeros, missing parts.
var trickyVersions = []string{
	"0", "1", "1.0", "1.0-1", "1.0-0", "1.00", "01.0", "1.0~rc1", "1.0~~", "1.0~rc1-1", "1.0+b1", "1.0a", "1.0.a", "1.0.1", "1.0.10", "1.0.9",
	"1:0.9", "0:1.0", "2:1.0~rc1-3", "2.10", "2.10-3", "2.9-3+deb12u1", "1.0.0", "10", "9", "1.0-1.1", "1.0-1~bpo12+1", "1a1", "1b", "1A",
}

func TestVersionsAreOrderedAsByDpkgItself(t *testing.T) {
	needTool(t, "dpkg", "dpkg")
	compareWithTool(t, compareDeb, func(a, b string) int {
		for op, order := range map[string]int{"lt": -1, "eq": 0} {
			if exec.Command("dpkg", "--compare-versions", a, op, b).Run() == nil {
				return order
			}
		}
		return 1
	})
}

func TestVersionsAreOrderedAsByRpmItself(t *testing.T) {
	needTool(t, "rpm", "rpm")
	compareWithTool(t, compareRpm, func(a, b string) int {
		if !strings.Contains(b, "-") { // a condition without a release is about every release
			a, _, _ = strings.Cut(a, "-")
		}
		out, err := exec.Command("rpm", "--eval", fmt.Sprintf(`%%{lua: print(rpm.ver("%s") == rpm.ver("%s") and 0 or rpm.ver("%s") < rpm.ver("%s") and -1 or 1)}`, a, b, a, b)).Output()
		if err != nil {
			t.Fatal(err)
		}
		var order int
		if _, err := fmt.Sscan(string(out), &order); err != nil {
			t.Fatalf("rpm compared %s with %s: %q", a, b, out)
		}
		return order
	})
}

func compareWithTool(t *testing.T, compare compareFunc, tool func(a, b string) int) {
	t.Helper()
	for i, a := range trickyVersions {
		for _, b := range trickyVersions[i:] {
			got, err := compare(a, b)
			if err != nil {
				t.Errorf("compare %s with %s: %v", a, b, err)
				continue
			}
			if want := tool(a, b); cmp.Compare(got, 0) != want {
				t.Errorf("compare %s with %s: %d, the tool says %d", a, b, got, want)
			}
		}
	}
}

func TestOrderIsTheOppositeTheOtherWayRound(t *testing.T) {
	version := rapid.StringMatching(`[0-9]{1,3}([.+~a-z0-9]{0,8})(-[0-9a-z~+]{1,5})?`)
	for name, compare := range map[string]compareFunc{"dpkg": compareDeb, "dotted": compareDotted} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				a, b := version.Draw(t, "a"), version.Draw(t, "b")
				there, err1 := compare(a, b)
				back, err2 := compare(b, a)
				if (err1 == nil) != (err2 == nil) || cmp.Compare(there, 0) != -cmp.Compare(back, 0) {
					t.Fatalf("%q and %q: %d, %v there and %d, %v back", a, b, there, err1, back, err2)
				}
			})
		})
	}
}

func FuzzConstraint(f *testing.F) {
	f.Add(">= 2.10", "2.10-3")
	f.Add("<1:2~^", "1:2~rc1-1")
	f.Add("= 99999999999999999999", "-")
	f.Fuzz(func(t *testing.T, text, installed string) {
		c, err := ParseConstraint(text)
		if err != nil {
			if c != (Constraint{}) {
				t.Errorf("%q is an error and yet %+v", text, c)
			}
			return
		}
		if again, err := ParseConstraint(c.Op + c.Version); err != nil || again != c {
			t.Errorf("%+v written and read again is %+v, %v", c, again, err)
		}
		for _, compare := range []compareFunc{compareDeb, compareRpm, compareDotted} {
			if met, err := c.met(installed, compare); met && err != nil {
				t.Errorf("%+v is met by %q and yet %v", c, installed, err)
			}
		}
	})
}
