package dashboards

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// schemaVersion is that of Grafana's dashboard format which the structs below write.
const schemaVersion = 41

const (
	columns     = 24
	rowHeight   = 1
	statHeight  = 4
	panelHeight = 8
)

type (
	dashboard struct {
		UID           string            `json:"uid"`
		Title         string            `json:"title"`
		Description   string            `json:"description"`
		Tags          []string          `json:"tags"`
		Editable      bool              `json:"editable"`
		GraphTooltip  int               `json:"graphTooltip"`
		Refresh       string            `json:"refresh"`
		SchemaVersion int               `json:"schemaVersion"`
		Time          map[string]string `json:"time"`
		Timezone      string            `json:"timezone"`
		Annotations   list[struct{}]    `json:"annotations"`
		Templating    list[templating]  `json:"templating"`
		Panels        []panel           `json:"panels"`
	}
	list[T any] struct {
		List []T `json:"list"`
	}
	templating struct {
		Name       string      `json:"name"`
		Label      string      `json:"label"`
		Type       string      `json:"type"`
		Query      string      `json:"query"`
		Datasource *datasource `json:"datasource,omitempty"`
		Refresh    int         `json:"refresh,omitempty"`
		IncludeAll bool        `json:"includeAll,omitempty"`
		Multi      bool        `json:"multi,omitempty"`
		AllValue   string      `json:"allValue,omitempty"`
		Sort       int         `json:"sort,omitempty"`
	}
	datasource struct {
		Type string `json:"type"`
		UID  string `json:"uid"`
	}
	panel struct {
		ID          int          `json:"id"`
		Type        string       `json:"type"`
		Title       string       `json:"title"`
		Description string       `json:"description,omitempty"`
		GridPos     gridPos      `json:"gridPos"`
		Collapsed   *bool        `json:"collapsed,omitempty"` // of a row
		Panels      *[]panel     `json:"panels,omitempty"`    // of a row that is collapsed
		Datasource  *datasource  `json:"datasource,omitempty"`
		FieldConfig *fieldConfig `json:"fieldConfig,omitempty"`
		Options     any          `json:"options,omitempty"`
		Targets     []target     `json:"targets,omitempty"`
	}
	gridPos struct {
		H int `json:"h"`
		W int `json:"w"`
		X int `json:"x"`
		Y int `json:"y"`
	}
	fieldConfig struct {
		Defaults  fieldDefaults `json:"defaults"`
		Overrides []struct{}    `json:"overrides"`
	}
	fieldDefaults struct {
		Unit       string          `json:"unit"`
		Min        float64         `json:"min"`
		Color      *fieldColor     `json:"color,omitempty"`
		Thresholds *thresholds     `json:"thresholds,omitempty"`
		Custom     *timeseriesDraw `json:"custom,omitempty"`
	}
	fieldColor struct {
		Mode string `json:"mode"`
	}
	thresholds struct {
		Mode  string      `json:"mode"`
		Steps []threshold `json:"steps"`
	}
	threshold struct {
		Color string   `json:"color"`
		Value *float64 `json:"value"` // null: everything below the next
	}
	timeseriesDraw struct {
		FillOpacity int      `json:"fillOpacity"`
		LineWidth   int      `json:"lineWidth"`
		ShowPoints  string   `json:"showPoints"`
		Stacking    stacking `json:"stacking"`
	}
	stacking struct {
		Group string `json:"group"`
		Mode  string `json:"mode"`
	}
	reduceOptions struct {
		Calcs  []string `json:"calcs"`
		Fields string   `json:"fields"`
		Values bool     `json:"values"`
	}
	target struct {
		RefID        string     `json:"refId"`
		Datasource   datasource `json:"datasource"`
		Expr         string     `json:"expr"`
		LegendFormat string     `json:"legendFormat,omitempty"`
		Instant      bool       `json:"instant"`
		Range        bool       `json:"range"`
		Format       string     `json:"format"`
	}
)

// prometheus is the data source that the reader of a board chooses.
func prometheus() datasource { return datasource{Type: "prometheus", UID: "${datasource}"} }

// JSON gives the board as Grafana imports it.
func (b Board) JSON() ([]byte, error) {
	d := dashboard{
		UID: "chandler-" + b.UID, Title: b.Title, Description: b.Description, Tags: []string{"chandler"}, GraphTooltip: 1, Refresh: "30s",
		SchemaVersion: schemaVersion, Time: map[string]string{"from": "now-6h", "to": "now"}, Timezone: "browser",
		Annotations: list[struct{}]{List: []struct{}{}}, Templating: list[templating]{List: b.variables()},
	}
	y := 0
	for _, r := range b.Rows {
		var err error
		if y, err = d.addRow(r, y); err != nil {
			return nil, fmt.Errorf("board %s: %w", b.UID, err)
		}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false) // expressions stay readable
	enc.SetIndent("", "  ")
	if err := enc.Encode(d); err != nil {
		return nil, fmt.Errorf("board %s: %w", b.UID, err)
	}
	return out.Bytes(), nil
}

func (b Board) variables() []templating {
	all := []templating{{Name: "datasource", Label: "Data source", Type: "datasource", Query: "prometheus"}}
	source := prometheus()
	for _, v := range b.Variables {
		all = append(all, templating{
			Name: v.Name, Label: v.Title, Type: "query", Datasource: &source, Query: fmt.Sprintf("label_values(%s, %s)", v.Metric, v.Name),
			Refresh: 2, IncludeAll: true, Multi: true, AllValue: ".*", Sort: 1, // 2: at every change of the time range
		})
	}
	return all
}

// addRow places a row's title and panels from line y on, and gives the line below them.
func (d *dashboard) addRow(r Row, y int) (int, error) {
	open := false
	d.Panels = append(d.Panels, panel{ID: len(d.Panels) + 1, Type: "row", Title: r.Title, Collapsed: &open, Panels: &[]panel{},
		GridPos: gridPos{H: rowHeight, W: columns, Y: y}})
	y += rowHeight
	x, height := 0, 0
	for _, p := range r.Panels {
		if p.Width < 1 || p.Width > columns || len(p.Queries) == 0 || len(p.Queries) > 26 {
			return 0, fmt.Errorf("panel %q is %d columns wide and has %d queries", p.Title, p.Width, len(p.Queries))
		}
		if x+p.Width > columns {
			x, y, height = 0, y+height, 0
		}
		h := panelHeight
		if p.Kind == Stat {
			h = statHeight
		}
		d.Panels = append(d.Panels, p.grafana(len(d.Panels)+1, gridPos{H: h, W: p.Width, X: x, Y: y}))
		x, height = x+p.Width, max(height, h)
	}
	return y + height, nil
}

func (p Panel) grafana(id int, at gridPos) panel {
	source := prometheus()
	out := panel{ID: id, Type: string(p.Kind), Title: p.Title, Description: p.Description, GridPos: at, Datasource: &source,
		FieldConfig: &fieldConfig{Defaults: p.defaults(), Overrides: []struct{}{}}, Options: p.options()}
	for i, q := range p.Queries {
		t := target{RefID: string(rune('A' + i)), Datasource: source, Expr: strings.TrimSpace(q.Expr), LegendFormat: q.Legend, Format: "time_series"}
		t.Range = p.Kind == TimeSeries
		t.Instant = !t.Range
		if p.Kind == Table {
			t.Format = "table"
		}
		out.Targets = append(out.Targets, t)
	}
	return out
}

func (p Panel) defaults() fieldDefaults {
	d := fieldDefaults{Unit: string(p.Unit)}
	if p.Kind == TimeSeries {
		d.Custom = &timeseriesDraw{LineWidth: 1, FillOpacity: 10, ShowPoints: "never", Stacking: stacking{Group: "A", Mode: "none"}}
		if p.Stacked {
			d.Custom.FillOpacity, d.Custom.Stacking.Mode = 60, "normal"
		}
	}
	if len(p.Steps) > 0 {
		d.Color = &fieldColor{Mode: "thresholds"}
		d.Thresholds = &thresholds{Mode: "absolute"}
		for i, s := range p.Steps {
			t := threshold{Color: s.Color}
			if i > 0 {
				t.Value = &s.From
			}
			d.Thresholds.Steps = append(d.Thresholds.Steps, t)
		}
	}
	return d
}

func (p Panel) options() any {
	last := reduceOptions{Calcs: []string{"lastNotNull"}}
	switch p.Kind {
	case Stat:
		return map[string]any{"reduceOptions": last, "colorMode": "value", "graphMode": "area"}
	case Bars:
		return map[string]any{"reduceOptions": last, "orientation": "horizontal", "displayMode": "basic"}
	case TimeSeries:
		return map[string]any{
			"legend":  map[string]any{"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []string{}},
			"tooltip": map[string]any{"mode": "multi", "sort": "desc"},
		}
	}
	return map[string]any{}
}
