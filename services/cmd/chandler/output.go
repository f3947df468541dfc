package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
)

// The forms of an answer.
const (
	formTable = "table"
	formWide  = "wide"
	formJSON  = "json"
	formYAML  = "yaml"
	formName  = "name"
	formCSV   = "csv"
)

func formats() []string {
	return []string{formTable, formWide, formJSON, formYAML, formName, formCSV}
}

func validFormat(form string) error {
	if !slices.Contains(formats(), form) {
		return fmt.Errorf("-o %q: it must be one of %s", form, strings.Join(formats(), ", "))
	}
	return nil
}

// only refuses a form that a command does not have.
func (a *app) only(forms ...string) error {
	if !slices.Contains(forms, a.output) {
		return fmt.Errorf("-o %s: this command has only %s", a.output, strings.Join(forms, ", "))
	}
	return nil
}

// people says whether a form is for people to read.
func people(form string) bool { return form == formTable || form == formWide }

// answer ends a command that did something: one sentence for people, the struct or its name otherwise.
func (a *app) answer(cmd *cobra.Command, data any, name, format string, args ...any) error {
	if people(a.output) {
		note(cmd.OutOrStdout(), format, args...)
		return nil
	}
	return writeDetail(cmd.OutOrStdout(), a.output, data, name, nil)
}

// column of a listing. A wide one is left out of the plain table.
type column[T any] struct {
	head string
	wide bool
	cell func(T) any
}

// listing renders any list: -o json and yaml give the rows' structs as they are, the others the columns.
type listing[T any] struct {
	name    func(T) string // what -o name prints
	columns []column[T]
}

// show answers a command. People are told where a list is empty.
func (l listing[T]) show(cmd *cobra.Command, form string, rows []T) error {
	if people(form) && len(rows) == 0 {
		note(cmd.ErrOrStderr(), "none")
		return nil
	}
	return l.write(cmd.OutOrStdout(), form, rows)
}

func (l listing[T]) write(w io.Writer, form string, rows []T) error {
	switch form {
	case formJSON, formYAML:
		if rows == nil {
			rows = []T{}
		}
		return writeData(w, form, rows)
	case formName:
		for _, r := range rows {
			if _, err := fmt.Fprintln(w, printable(l.name(r))); err != nil {
				return err
			}
		}
		return nil
	case formCSV:
		return l.writeCSV(w, rows)
	}
	_, err := fmt.Fprintln(w, l.table(form == formWide, rows))
	return err
}

func (l listing[T]) table(wide bool, rows []T) string {
	t := table.NewWriter()
	t.SetStyle(plainStyle())
	t.AppendHeader(l.row(wide, func(c column[T]) any { return c.head }))
	for _, r := range rows {
		t.AppendRow(l.row(wide, func(c column[T]) any { return printable(cellText(c.cell(r))) }))
	}
	return trimLines(t.Render())
}

func (l listing[T]) row(wide bool, cell func(column[T]) any) table.Row {
	var row table.Row
	for _, c := range l.columns {
		if !c.wide || wide {
			row = append(row, cell(c))
		}
	}
	return row
}

// writeCSV gives every column, the wide ones too, with times in RFC 3339, whole ids and plain numbers.
func (l listing[T]) writeCSV(w io.Writer, rows []T) error {
	out := csv.NewWriter(w)
	record := make([]string, len(l.columns))
	for i, c := range l.columns {
		record[i] = strings.ToLower(strings.ReplaceAll(c.head, " ", "_"))
	}
	_ = out.Write(record)
	for _, r := range rows {
		for i, c := range l.columns {
			record[i] = printable(cellData(c.cell(r)))
		}
		_ = out.Write(record)
	}
	out.Flush()
	return out.Error()
}

// field is one line of a detail.
type field struct {
	name  string
	value any
}

// writeDetail renders one thing: json and yaml give the struct as it is, name its name, the others its
// fields; fields without a value are left out.
func writeDetail(w io.Writer, form string, data any, name string, fields []field) error {
	switch form {
	case formJSON, formYAML:
		return writeData(w, form, data)
	case formName:
		_, err := fmt.Fprintln(w, printable(name))
		return err
	case formCSV:
		return fmt.Errorf("-o csv is for listings; use json or yaml here")
	}
	t := table.NewWriter()
	t.SetStyle(plainStyle())
	for _, f := range fields {
		if text := cellText(f.value); text != "" {
			t.AppendRow(table.Row{f.name, printable(text)})
		}
	}
	_, err := fmt.Fprintln(w, trimLines(t.Render()))
	return err
}

// writeData renders JSON or YAML. YAML comes from the JSON, so that both have the same names.
func writeData(w io.Writer, form string, data any) error {
	encoded, err := json.MarshalIndent(data, "", "  ")
	if err != nil {
		return err
	}
	encoded = append(encoded, '\n')
	if form == formYAML {
		if encoded, err = yaml.JSONToYAML(encoded); err != nil {
			return fmt.Errorf("write yaml: %w", err)
		}
	}
	_, err = w.Write(encoded)
	return err
}

// writeNext writes one of several answers that follow each other: a JSON object on a line, or a YAML document.
func writeNext(w io.Writer, form string, data any) error {
	if form == formYAML {
		if _, err := fmt.Fprintln(w, "---"); err != nil {
			return err
		}
		return writeData(w, form, data)
	}
	return json.NewEncoder(w).Encode(data)
}

// printable takes the control characters out of text that others wrote (host names, output, answers of
// servers), so that it cannot steer the administrator's terminal. New lines and tabs stay.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

func plainStyle() table.Style {
	s := table.StyleDefault
	s.Box.PaddingLeft, s.Box.PaddingRight = "", "  "
	s.Options = table.OptionsNoBordersAndSeparators
	return s
}

func trimLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

func mark(yes bool, sign string) string {
	if yes {
		return sign
	}
	return ""
}
