package dashboards

// Board is one Grafana dashboard.
type Board struct {
	UID         string // also the name of its file, without .json
	Title       string
	Description string
	Variables   []Variable
	Rows        []Row
}

// Variable is a choice at the top of a board, used in expressions as {label=~"$name"}.
type Variable struct {
	Name  string // also the label
	Title string
	// Metric is one that has the label; its values are the choices.
	Metric string
}

// Row is a titled group of panels, laid out from left to right.
type Row struct {
	Title  string
	Panels []Panel
}

// Kind is how a panel shows its queries.
type Kind string

// The kinds of panels.
const (
	Stat       Kind = "stat"       // the last value, large
	TimeSeries Kind = "timeseries" // values over time
	Bars       Kind = "bargauge"   // the last value of each series, side by side
	Table      Kind = "table"      // the last value of each series, one a line
)

// Unit is how Grafana writes a value.
type Unit string

// The units of panels.
const (
	Count          Unit = "short"
	Share          Unit = "percentunit" // 0 to 1
	Seconds        Unit = "s"
	Bytes          Unit = "bytes"
	BytesPerSecond Unit = "Bps"
	PerSecond      Unit = "ops"
)

// Panel is one picture of a board.
type Panel struct {
	Title       string
	Description string // what it tells, and what to do when it looks wrong
	Kind        Kind
	Unit        Unit
	Width       int // of the 24 columns of a board
	// Stacked fills and adds up the series of a TimeSeries.
	Stacked bool
	// Steps colours values from each threshold on; the first is the colour of all below.
	Steps   []Step
	Queries []Query
}

// Step is a threshold and the colour of what reaches it.
type Step struct {
	From  float64
	Color string
}

// Query is one PromQL expression and how its series are named.
type Query struct {
	Expr   string
	Legend string // Grafana's {{label}} syntax
	// Quiet marks an expression that may give no series at all, until what it counts happens first.
	Quiet bool
}

// Boards are all boards.
func Boards() []Board { return []Board{Rollout(), Pipeline()} }
