package calendar

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// String is the window in words, without its name: "second Tuesday of the month plus 3 days, 22:00 for 6h, each machine's
// own time". Of a window that Validate refuses it says so.
func (w Window) String() string {
	r, err := w.rule(time.UTC)
	if err != nil {
		return "no window: " + err.Error()
	}
	if r.kind == once {
		text := strings.Replace(w.Once.String(), "T", " ", 1)
		if !w.Once.Floating() {
			return fmt.Sprintf("once, %s for %s", text, w.For)
		}
		return fmt.Sprintf("once, %s for %s, %s", text, w.For, w.Zone.words())
	}
	text := fmt.Sprintf("%s, %s for %s, %s", r.words(), w.At, w.For, w.Zone.words())
	if w.From != "" {
		text += ", from " + w.From
	}
	if w.Until != "" {
		text += ", until " + w.Until
	}
	return text
}

func (z Zone) words() string {
	switch z {
	case "", "UTC":
		return "UTC"
	case ZoneAgent:
		return "each machine's own time"
	}
	return string(z) + " time"
}

var ordinals = [...]string{"", "first", "second", "third", "fourth", "fifth"}

// words is the recurrence of r.
func (r *rule) words() string {
	month := "the month"
	if r.every > 1 {
		month = "every " + strconv.Itoa(r.every) + " months"
	}
	switch r.kind {
	case daily:
		if r.every == 1 {
			return "every day"
		}
		return "every " + strconv.Itoa(r.every) + " days"
	case weekly:
		if r.every == 1 {
			return "every " + r.weekdayNames()
		}
		return fmt.Sprintf("%s of every %d weeks", r.weekdayNames(), r.every)
	case monthly:
		if r.date == lastOne {
			return "last day of " + month
		}
		return fmt.Sprintf("day %d of %s", r.date, month)
	}
	which := "last"
	if r.nth != lastOne {
		which = ordinals[r.nth]
	}
	text := fmt.Sprintf("%s %s of %s", which, r.weekdayNames(), month)
	switch r.plus {
	case 0:
		return text
	case 1:
		return text + " plus 1 day"
	}
	return fmt.Sprintf("%s plus %d days", text, r.plus)
}

// weekdayNames are the days of r from Monday on: "Saturday and Sunday".
func (r *rule) weekdayNames() string {
	var names []string
	for i := range 7 {
		if day := time.Weekday((i + 1) % 7); r.weekdays&(1<<day) != 0 {
			names = append(names, day.String())
		}
	}
	last := len(names) - 1
	if last == 0 {
		return names[0]
	}
	return strings.Join(names[:last], ", ") + " and " + names[last]
}
