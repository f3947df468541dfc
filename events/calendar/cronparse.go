package calendar

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// longestCron is more than an expression that lists every value has.
const longestCron = 512

var cronNames = map[string]string{
	"@hourly":  "0 * * * *",
	"@daily":   "0 0 * * *",
	"@weekly":  "0 0 * * 0",
	"@monthly": "0 0 1 * *",
	"@yearly":  "0 0 1 1 *",
}

// cronField is one of the five fields: its range and the names of its values from the first on.
type cronField struct {
	name     string
	low, top int
	names    []string
}

var cronFields = [5]cronField{
	{name: "minute", top: 59},
	{name: "hour", top: 23},
	{name: "day of month", low: 1, top: 31},
	{name: "month", low: 1, top: 12, names: []string{"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"}},
	{name: "day of week", top: 7, names: []string{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}},
}

// ParseCron reads five fields: minute, hour, day of month, month, day of week, each of them *, a value, a range (1-5),
// steps (*/15, 8-18/2) or a list of these. Months and days of the week have names (DEC, SAT); Sunday is 0 and 7. In the
// day of month, L is the last day; in the day of week, 5#2 is the second Friday of the month and 5L the last. If both
// fields of days are restricted (do not begin with *), either will do, as everywhere with cron. @hourly, @daily, @weekly,
// @monthly and @yearly are short for the obvious. What never fires, or not within 12 years, is refused.
func ParseCron(s string) (Cron, error) {
	if len(s) > longestCron {
		return Cron{}, fmt.Errorf("cron expression of %d characters: at most %d", len(s), longestCron)
	}
	words := strings.Fields(s)
	c := Cron{text: strings.Join(words, " ")}
	if long, ok := cronNames[c.text]; ok {
		words = strings.Fields(long)
	}
	if len(words) != len(cronFields) {
		return Cron{}, fmt.Errorf("cron %q: write five fields (minute hour day-of-month month day-of-week) or @hourly, @daily, @weekly, @monthly, @yearly", c.text)
	}
	for i, set := range []*uint64{&c.minutes, &c.hours, &c.days, &c.months, &c.weekdays} {
		for item := range strings.SplitSeq(words[i], ",") {
			values, err := c.item(i, item)
			if err != nil {
				return Cron{}, fmt.Errorf("cron %q: %s %q: %w", c.text, cronFields[i].name, item, err)
			}
			*set |= values
		}
	}
	c.weekdays = (c.weekdays | c.weekdays>>7) & 0x7f
	c.anyDay, c.anyWeekday = words[2][0] == '*', words[4][0] == '*'
	if err := c.fires(); err != nil {
		return Cron{}, fmt.Errorf("cron %q: %w", c.text, err)
	}
	return c, nil
}

// item reads one item of field i. What only a field of days has goes straight into c.
func (c *Cron) item(i int, item string) (uint64, error) {
	field := cronFields[i]
	switch field.name {
	case "day of month":
		if item == "L" {
			c.lastDay = true
			return 0, nil
		}
	case "day of week":
		if day, nth, ok := strings.Cut(item, "#"); ok {
			d, err := field.value(day)
			if err != nil {
				return 0, err
			}
			if len(nth) != 1 || nth < "1" || nth > "5" {
				return 0, errors.New("after # stands which of the month, 1 to 5")
			}
			c.nthWeekdays |= 1 << (int(nth[0]-'1')*7 + d%7)
			return 0, nil
		}
		if day, ok := strings.CutSuffix(item, "L"); ok && day != "" {
			d, err := field.value(day)
			if err != nil {
				return 0, err
			}
			c.lastWeekdays |= 1 << (d % 7)
			return 0, nil
		}
	}
	return field.set(item)
}

// set reads *, a value or a range, and a step of * or a range, into bits.
func (f cronField) set(item string) (values uint64, err error) {
	span, step, stepped := strings.Cut(item, "/")
	low, high := f.low, f.last()
	if span != "*" {
		from, to, ranged := strings.Cut(span, "-")
		if low, err = f.value(from); err != nil {
			return 0, err
		}
		if high = low; ranged {
			if high, err = f.value(to); err != nil {
				return 0, err
			}
		} else if stepped {
			return 0, fmt.Errorf("a step needs a range: %d-%d/%s", low, f.last(), step)
		}
		if f.top == 7 && ranged && high == 0 && low > 0 {
			high = 7 // FRI-SUN
		}
		if high < low {
			return 0, fmt.Errorf("the range runs backwards: write %d-%d,%d-%d", low, f.last(), f.low, high)
		}
	}
	by := 1
	if stepped {
		if by, err = number(step); err != nil || by < 1 || by > f.top {
			return 0, fmt.Errorf("the step is a number from 1 to %d", f.top)
		}
	}
	for v := low; v <= high; v += by {
		values |= 1 << v
	}
	return values, nil
}

// last is the last value that * stands for: of the days of the week not Sunday's second number.
func (f cronField) last() int {
	if f.top == 7 {
		return 6
	}
	return f.top
}

func (f cronField) value(s string) (int, error) {
	if i := slices.Index(f.names, strings.ToUpper(s)); i >= 0 {
		return f.low + i, nil
	}
	v, err := number(s)
	if err != nil || v < f.low || v > f.top {
		if f.names != nil {
			return 0, fmt.Errorf("neither a number from %d to %d nor a name (%s to %s)", f.low, f.top, f.names[0], f.names[len(f.names)-1])
		}
		return 0, fmt.Errorf("not a number from %d to %d", f.low, f.top)
	}
	return v, nil
}

// number reads one or two digits, nothing else.
func number(s string) (int, error) {
	if len(s) < 1 || len(s) > 2 || strings.Trim(s, "0123456789") != "" {
		return 0, errors.New("not a number")
	}
	return strconv.Atoi(s)
}

// fires refuses expressions that name no day, or that miss all days of 12 years, as Sundays that are a 29 February do.
// The days that are missing longest are those of leap years, hence the looks from one 1 March to the next.
func (c Cron) fires() error {
	for year := 2000; year <= 2028; year += 4 {
		if _, ok := c.next(wallOf(year, time.March, 1, 0, 0, 0) - 1); !ok {
			return fmt.Errorf("never fires, or not within %d years: no such day", horizonYears)
		}
	}
	return nil
}
