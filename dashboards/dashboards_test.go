package dashboards

import (
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the boards' files")

// unavailable skips the test, unless everything is required.
func unavailable(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func TestTheFilesAreThoseOfTheDeclarations(t *testing.T) {
	for _, b := range Boards() {
		t.Run(b.UID, func(t *testing.T) {
			want, err := b.JSON()
			if err != nil {
				t.Fatal(err)
			}
			file := b.UID + ".json"
			if *update {
				if err := os.WriteFile(file, want, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("go test ./dashboards -update is due (-declared +file):\n%s", diff)
			}
		})
	}
}

func TestNoTwoPanelsOfABoardOverlap(t *testing.T) {
	for _, b := range Boards() {
		data, err := b.JSON()
		if err != nil {
			t.Fatal(err)
		}
		var d dashboard
		if err := json.Unmarshal(data, &d); err != nil {
			t.Fatal(err)
		}
		taken := map[[2]int]string{}
		for _, p := range d.Panels {
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other, there := taken[[2]int{x, y}]; there || x >= columns {
						t.Fatalf("board %s: panel %q covers %q at column %d, line %d", b.UID, p.Title, other, x, y)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
		}
	}
}

func TestABoardThatCannotBeDrawnIsAnError(t *testing.T) {
	query := []Query{{Expr: "up"}}
	for name, p := range map[string]Panel{
		"a panel without a query":              {Title: "x", Kind: Stat, Width: 4},
		"a panel that is wider than the board": {Title: "x", Kind: Stat, Width: 25, Queries: query},
		"a panel without a width":              {Title: "x", Kind: Stat, Queries: query},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := (Board{UID: "b", Rows: []Row{{Panels: []Panel{p}}}}).JSON(); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestPrometheusTakesTheRulesAndTheirTestsPass(t *testing.T) {
	if _, err := exec.LookPath("promtool"); err != nil {
		unavailable(t, "checking rules needs promtool: apt-get install prometheus")
	}
	for _, args := range [][]string{{"check", "rules", "rules.yml"}, {"test", "rules", "rules_test.yml"}} {
		if out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

func TestEveryAlertSaysHowBadItIsAndWhatToDo(t *testing.T) {
	tests, err := os.ReadFile("rules_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range readAlerts(t) {
		if a.Labels["severity"] == "" || a.Annotations["summary"] == "" || a.Annotations["runbook"] == "" {
			t.Errorf("alert %s lacks a severity, a summary or a runbook", a.Alert)
		}
		if !strings.Contains(string(tests), "alertname: "+a.Alert) {
			t.Errorf("alert %s has no test in rules_test.yml", a.Alert)
		}
	}
}

// alert is one of rules.yml.
type alert struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func readAlerts(t *testing.T) []alert {
	t.Helper()
	data, err := os.ReadFile("rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Name  string  `yaml:"name"`
			Rules []alert `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.UnmarshalWithOptions(data, &rules, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	var all []alert
	for _, g := range rules.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("rules.yml has no alerts")
	}
	return all
}

// metricName finds Chandler's metrics in an expression: chandler_<package>_<what>.
var metricName = regexp.MustCompile(`\bchandler_([a-z]+)_([a-z_]+)\b`)

// expressions are all that boards and alerts evaluate, by where they stand.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, b := range Boards() {
		for _, v := range b.Variables {
			all["variable "+v.Name+" of "+b.UID] = v.Metric
		}
		for _, r := range b.Rows {
			for _, p := range r.Panels {
				for _, q := range p.Queries {
					all[b.UID+": "+p.Title+" "+q.Legend] = q.Expr
				}
			}
		}
	}
	for _, a := range readAlerts(t) {
		all["alert "+a.Alert] = a.Expr
	}
	return all
}

// TestEveryMetricIsDeclared also covers metrics that a fleet without trouble never exports.
func TestEveryMetricIsDeclaredByThePackageThatItsNameNames(t *testing.T) {
	declared := map[string]string{} // package name to the text of its metrics.go
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "metrics.go" {
			return err
		}
		data, err := os.ReadFile(path)
		declared[filepath.Base(filepath.Dir(path))] += string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for where, expr := range expressions(t) {
		for _, m := range metricName.FindAllStringSubmatch(expr, -1) {
			what := strings.TrimSuffix(m[2], "_bucket")
			if text := declared[m[1]]; !strings.Contains(text, `"`+what+`"`) && !strings.Contains(text, `"chandler_`+m[1]+"_"+what+`"`) {
				t.Errorf("%s: metric %s is declared by no metrics.go of a package %s", where, m[0], m[1])
			}
		}
	}
}
