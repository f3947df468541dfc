package main

import (
	"fmt"
	"strings"
	"time"

	"chandler/events/calendar"
)

// cell is what people see otherwise than programs do: "3h ago", "9,214", the beginning of an id. Tables
// show text; csv gives data.
type cell struct{ text, data string }

func (c cell) String() string { return c.text }

// agoCell shows how long ago something was.
func (a *app) agoCell(t time.Time) cell { return cell{a.ago(t), timeData(t)} }

// timeCell shows a time to the second.
func (a *app) timeCell(t time.Time) cell { return cell{a.longTime(t), timeData(t)} }

func (a *app) optionalCell(t *time.Time) cell {
	if t == nil {
		return cell{}
	}
	return a.timeCell(*t)
}

func (a *app) momentCell(m *calendar.Moment, zone calendar.Zone) cell {
	if m == nil {
		return cell{}
	}
	return cell{a.moment(m, zone), m.String()}
}

func timeData(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func countCell[N int | int64 | uint64](n N) cell { return cell{count(n), fmt.Sprint(n)} }

func sizeCell(n int64) cell { return cell{byteSize(n), fmt.Sprint(n)} }

// shownJob is how much of a job's id is shown; any beginning that is unique is understood.
const shownJob = 8

func jobCell(id string) cell { return cell{id[:min(shownJob, len(id))], id} }

// cellText is what tables show.
func cellText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []string:
		return strings.Join(v, ", ")
	}
	return fmt.Sprint(v)
}

// cellData is what programs read.
func cellData(v any) string {
	if c, ok := v.(cell); ok {
		return c.data
	}
	return cellText(v)
}

// joined lists words of any kind: "a, b, c".
func joined[S ~string](words []S) string {
	texts := make([]string, len(words))
	for i, w := range words {
		texts[i] = string(w)
	}
	return strings.Join(texts, ", ")
}
