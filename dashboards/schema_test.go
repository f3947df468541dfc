package dashboards

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// schemaDir holds Grafana's own types of dashboards, with a compiler that checks JSON against them.
const schemaDir = "testdata/schema"

// panelTypes are the modules of Grafana that know a panel's options.
var panelTypes = map[Kind]string{Stat: "stat/panelcfg/x/StatPanelCfg", TimeSeries: "timeseries/panelcfg/x/TimeSeriesPanelCfg", Bars: "bargauge/panelcfg/x/BarGaugePanelCfg", Table: "table/panelcfg/x/TablePanelCfg"}

func TestTheBoardsAreOfGrafanasOwnTypes(t *testing.T) {
	var boards []dashboard
	for _, b := range Boards() {
		boards = append(boards, drawn(t, b))
	}
	if out, err := typecheck(t, boards); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestGrafanasTypesCatchWhatIsWrong(t *testing.T) {
	for name, spoil := range map[string]func(d *dashboard){
		"an unknown tooltip mode": func(d *dashboard) { d.GraphTooltip = 7 },
		"a colour mode that there is not": func(d *dashboard) {
			defaults := &first(t, d, Stat).FieldConfig.Defaults
			defaults.Color = &fieldColor{Mode: "rainbow"}
		},
		"an option that the panel does not have": func(d *dashboard) { first(t, d, Stat).Options.(map[string]any)["colourMode"] = "value" },
		"a legend that cannot be shown": func(d *dashboard) {
			first(t, d, TimeSeries).Options.(map[string]any)["legend"].(map[string]any)["displayMode"] = "poem"
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := drawn(t, Rollout())
			spoil(&d)
			if out, err := typecheck(t, []dashboard{d}); err == nil {
				t.Errorf("it passes: %s", out)
			} else if !strings.Contains(out, "board_0.ts") {
				t.Errorf("not the board is refused: %s", out)
			}
		})
	}
}

// drawn is a board as its JSON reads.
func drawn(t *testing.T, b Board) dashboard {
	t.Helper()
	data, err := b.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func first(t *testing.T, d *dashboard, kind Kind) *panel {
	t.Helper()
	for i := range d.Panels {
		if d.Panels[i].Type == string(kind) {
			return &d.Panels[i]
		}
	}
	t.Fatalf("no panel of kind %s", kind)
	return nil
}

// typecheck writes boards as TypeScript and compiles them against Grafana's types.
func typecheck(t *testing.T, boards []dashboard) (string, error) {
	t.Helper()
	modules, err := filepath.Abs(filepath.Join(schemaDir, "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	compiler := filepath.Join(modules, ".bin", "tsc")
	if _, err := os.Stat(compiler); err != nil {
		unavailable(t, "checking boards needs Grafana's types: npm ci in dashboards/"+schemaDir)
	}
	dir := t.TempDir()
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"plain.ts", "tsconfig.json"} {
		data, err := os.ReadFile(filepath.Join(schemaDir, file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, d := range boards {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("board_%d.ts", i)), []byte(typescript(t, d)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), compiler, "--project", dir)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// typescript writes a board as a constant of Grafana's type, and the options and drawing of each panel, of
// which that type knows nothing, as constants of the panel's types.
func typescript(t *testing.T, d dashboard) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("import type { Dashboard } from '@grafana/schema';\nimport type { Plain } from './plain';\n")
	for kind, module := range panelTypes {
		fmt.Fprintf(&b, "import type * as %s from '@grafana/schema/dist/esm/raw/composable/%s_types.gen';\n", kind, module)
	}
	fmt.Fprintf(&b, "export const board: Plain<Dashboard> = %s;\n", jsonOf(t, d))
	for _, p := range d.Panels {
		if _, known := panelTypes[Kind(p.Type)]; !known {
			continue // a row
		}
		fmt.Fprintf(&b, "export const options%d: Plain<%s.Options> = %s;\n", p.ID, p.Type, jsonOf(t, p.Options))
		if custom := p.FieldConfig.Defaults.Custom; custom != nil {
			fmt.Fprintf(&b, "export const custom%d: Plain<%s.FieldConfig> = %s;\n", p.ID, p.Type, jsonOf(t, custom))
		}
	}
	return b.String()
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
