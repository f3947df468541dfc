package events_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
)

// slowly is what encoding/json writes of events.
func slowly(t testing.TB, v any) string {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// fillings are values of every kind that the fields of statuses and offers have.
func fillings(kind reflect.Type) []reflect.Value {
	var all []any
	switch {
	case kind == reflect.TypeFor[time.Time]():
		all = []any{time.Date(2026, 12, 1, 8, 0, 0, 5, time.UTC), time.Date(1, 2, 3, 4, 5, 6, 0, time.FixedZone("x", 5400))}
	case kind == reflect.TypeFor[*time.Time]():
		all = []any{new(time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC))}
	case kind == reflect.TypeFor[[]events.Access]():
		all = []any{[]events.Access{}, []events.Access{{Resource: "smb://a/b", When: "run"}, {Account: `"x"`, Version: 3, Reason: events.SourceNotFound, Answer: "ä", User: "u", Identity: "user"}}}
	case kind == reflect.TypeFor[*int]():
		all = []any{new(0), new(-1603)}
	case kind.Kind() == reflect.String:
		for _, text := range []string{"plain", `<a> & "b" \`, "Größe", "line\nnext\x00", "\xff", "\u2028", "\x7f", " "} {
			all = append(all, reflect.ValueOf(text).Convert(kind).Interface())
		}
	case kind.Kind() == reflect.Float64:
		all = []any{1.2, -0.5, 1e-7, 1e21, 123456789.125, 3e-6}
	case kind.Kind() == reflect.Bool:
		all = []any{true}
	default:
		for _, n := range []int64{1, 1 << 31, 1<<32 - 1} {
			all = append(all, reflect.ValueOf(n).Convert(kind).Interface())
		}
	}
	values := make([]reflect.Value, len(all))
	for i, v := range all {
		values[i] = reflect.ValueOf(v)
	}
	return values
}

// each calls do with v after every field has had every filling, alone.
func each[T any](v T, do func(field string, v T)) {
	do("nothing", v)
	for _, f := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		if f.Anonymous {
			continue
		}
		for _, filling := range fillings(f.Type) {
			changed := v
			reflect.ValueOf(&changed).Elem().FieldByIndex(f.Index).Set(filling)
			do(f.Name, changed)
		}
	}
}

func TestWhatIsWrittenWithoutReflectionIsWhatReflectionWrites(t *testing.T) {
	compare := func(field string, got []byte, ok bool, v any) {
		t.Helper()
		if want := slowly(t, v); ok && string(got) != "before"+want {
			t.Errorf("%s:\n%s\nwant\n%s", field, got, want)
		}
		if exponent := field == "Seconds"; !ok && !exponent {
			t.Errorf("%s is left to reflection", field)
		}
	}
	before := []byte("before")
	each(events.JobOffer{}, func(field string, v events.JobOffer) {
		got, ok := events.AppendOffer(before, &v)
		compare(field, got, ok, v)
	})
	each(events.JobStatus{}, func(field string, v events.JobStatus) {
		got, ok := events.AppendStatus(before, &v)
		compare(field, got, ok, v)
	})
	each(events.JobEnd{}, func(field string, v events.JobEnd) {
		got, ok := events.AppendEnd(before, &v)
		compare(field, got, ok, v)
	})
}

func TestATimeThatJSONCannotHoldIsLeftToWhatSaysSo(t *testing.T) {
	s := events.JobStatus{At: time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)}
	if got, ok := events.AppendStatus(nil, &s); ok {
		t.Errorf("written as %s", got)
	}
}

func example(t testing.TB) events.JobStatus {
	s, ok := events.JobSucceeded.Example.(events.JobStatus)
	if !ok {
		t.Fatal("the example is no status")
	}
	return s
}

func TestEveryFieldOfAStatusIsReadAsReflectionReadsIt(t *testing.T) {
	each(example(t), func(field string, s events.JobStatus) {
		data, ok := events.AppendStatus(nil, &s)
		if !ok {
			data = []byte(slowly(t, s))
		}
		var want events.JobStatus
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatal(err)
		}
		got, ok := events.ReadStatus(data)
		inUTC := bytes.Count(data, []byte("Z\"")) > 0
		if plain := field != "Seconds" && inUTC; !ok && plain {
			t.Errorf("%s is left to reflection: %s", field, data)
		}
		if diff := cmp.Diff(want, got); ok && diff != "" {
			t.Errorf("%s: %s", field, diff)
		}
	})
}

func TestOffersAndEndsAreReadAsReflectionReadsThem(t *testing.T) {
	check := func(field string, data []byte, got any, ok bool, want any) {
		t.Helper()
		if err := json.Unmarshal(data, want); err != nil {
			t.Fatal(err)
		}
		if exponent := field == "Seconds"; !ok && !exponent && bytes.Contains(data, []byte("Z\"")) {
			t.Errorf("%s is left to reflection: %s", field, data)
		}
		if diff := cmp.Diff(reflect.ValueOf(want).Elem().Interface(), got); ok && diff != "" {
			t.Errorf("%s: %s", field, diff)
		}
	}
	each(events.JobEnd{JobStatus: example(t)}, func(field string, e events.JobEnd) {
		data := []byte(slowly(t, e))
		got, ok := events.ReadEnd(data)
		check(field, data, got, ok, &events.JobEnd{})
	})
	each(events.JobOffer{}, func(field string, o events.JobOffer) {
		data := []byte(slowly(t, o))
		got, ok := events.ReadOffer(data)
		check(field, data, got, ok, &events.JobOffer{})
		if !ok {
			t.Errorf("%s is left to reflection: %s", field, data)
		}
	})
	for _, bad := range []string{`"silent":1`, `"silent":"true"`, `"silent":truee`, `"silent":true,"silent":true`, `"silent":null`} {
		data := strings.Replace(slowly(t, example(t)), `"attempt":1`, `"attempt":1,`+bad, 1)
		if _, ok := events.ReadEnd([]byte(data)); ok {
			t.Errorf("an end with %s is read", bad)
		}
	}
}

func TestWhatIsNotPlainIsLeftToOthers(t *testing.T) {
	s := example(t)
	good := slowly(t, s)
	if _, ok := events.ReadStatus([]byte(good)); !ok {
		t.Fatal("the example is not read")
	}
	for name, edit := range map[string][2]string{
		"a field that is given twice":       {`"attempt":1`, `"attempt":1,"attempt":1`},
		"a field in capitals":               {`"attempt":1`, `"Attempt":1`},
		"a field that is not known":         {`"attempt":1`, `"attempt":1,"x":1`},
		"a field that is missing":           {`"attempt":1,`, ``},
		"a fraction of an attempt":          {`"attempt":1`, `"attempt":1.0`},
		"a number with an exponent":         {`"attempt":1`, `"attempt":1e0`},
		"a number with a zero in front":     {`"attempt":1`, `"attempt":01`},
		"a number below nothing":            {`"revision":1`, `"revision":-1`},
		"minus zero":                        {`"attempt":1`, `"attempt":-0`},
		"a number of more than 64 bits":     {`"revision":1`, `"revision":99999999999999999999`},
		"a transition of more than 32 bits": {`"transition":`, `"transition":9999999999`},
		"null":                              {`"attempt":1`, `"attempt":null`},
		"a number as text":                  {`"attempt":1`, `"attempt":"1"`},
		"a space":                           {`"attempt":1`, `"attempt": 1`},
		"an escape that is none":            {`"host":"`, `"host":"\x`},
		"a line break within a text":        {`"host":"`, "\"host\":\"\n"},
		"a time of another zone":            {`08:00:00Z`, `08:00:00+01:00`},
		"a time that is none":               {`08:00:00Z`, `25:00:00Z`},
		"an access without a time":          {`"attempt":1`, `"attempt":1,"accesses":[{"resource":"x","identity":"y","when":"run"}]`},
		"accesses that are not ended":       {`"attempt":1`, `"attempt":1,"accesses":[`},
		"a comma before the end":            {`Z"}`, `Z",}`},
		"something that follows":            {`Z"}`, `Z"} `},
		"what is cut off":                   {`Z"}`, `Z`},
	} {
		bad := strings.Replace(good, edit[0], edit[1], 1)
		if bad == good {
			t.Fatalf("%s: nothing is changed in %s", name, good)
		}
		if _, ok := events.ReadStatus([]byte(bad)); ok {
			t.Errorf("%s is read: %s", name, bad)
		}
	}
}

// readWithoutSchema are the readers of events that are read without their schemas, each with an example.
func readWithoutSchema(t *testing.T, d events.Declaration) (data string, read func(string) bool) {
	switch example := d.Example.(type) {
	case events.JobStatus:
		return slowly(t, example), func(text string) bool { _, ok := events.ReadStatus([]byte(text)); return ok }
	case events.JobEnd:
		return slowly(t, example), func(text string) bool { _, ok := events.ReadEnd([]byte(text)); return ok }
	case events.JobOffer:
		return slowly(t, example), func(text string) bool { _, ok := events.ReadOffer([]byte(text)); return ok }
	}
	return "", nil
}

// TestSchemasAskForNoMoreThanReadingWithoutThemSees fails when a schema gets a rule that is not known there.
func TestSchemasAskForNoMoreThanReadingWithoutThemSees(t *testing.T) {
	checked := 0
	for _, d := range events.Types() {
		data, read := readWithoutSchema(t, d)
		if read == nil {
			continue
		}
		checked++
		text, ok := events.Schema(d.Name)
		if !ok || !read(data) {
			t.Fatalf("%s has a schema: %t; its example is not read without: %s", d.Name, ok, data)
		}
		var schema map[string]any
		if err := json.Unmarshal(text, &schema); err != nil {
			t.Fatal(err)
		}
		checkKeywords(t, d.Name, schema)
		required, _ := schema["required"].([]any)
		for _, name := range required {
			member := regexp.MustCompile(`,?"` + name.(string) + `":("[^"]*"|[0-9]+)`)
			without := strings.Replace(member.ReplaceAllString(data, ""), "{,", "{", 1)
			if !json.Valid([]byte(without)) || without == data {
				t.Fatalf("%s is not taken out of %s", name, data)
			}
			if read(without) {
				t.Errorf("%s is read without %s, which its schema requires", d.Name, name)
			}
		}
	}
	if checked < 3 {
		t.Errorf("%d types are read without their schemas", checked)
	}
}

func checkKeywords(t *testing.T, name string, schema map[string]any) {
	t.Helper()
	known := []string{"$schema", "$id", "title", "description", "type", "properties", "required", "items", "format"}
	for keyword, value := range schema {
		if !slices.Contains(known, keyword) || keyword == "format" && value != "date-time" {
			t.Errorf("the schema of %s has the rule %s: %v", name, keyword, value)
		}
	}
	if items, ok := schema["items"].(map[string]any); ok {
		checkKeywords(t, name, items)
	}
	properties, _ := schema["properties"].(map[string]any)
	for _, property := range properties {
		checkKeywords(t, name, property.(map[string]any))
	}
}

// FuzzReadStatus: what is read without reflection is read as with it.
func FuzzReadStatus(f *testing.F) {
	each(example(f), func(_ string, s events.JobStatus) { f.Add([]byte(slowly(f, s))) })
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := events.ReadStatus(data)
		if !ok {
			return
		}
		var want events.JobStatus
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatalf("read %q: %v", data, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", data, diff)
		}
		if text, ok := events.AppendStatus(nil, &got); ok && string(text) != slowly(t, got) {
			t.Errorf("written as %s", text)
		}
	})
}

// FuzzNames: the forms of names are these patterns.
func FuzzNames(f *testing.F) {
	token, agent, digest := regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`), regexp.MustCompile(`^[a-z0-9]{8,32}$`), regexp.MustCompile(`^[0-9a-f]{64}$`)
	for _, s := range []string{"", "a", "-", "_a", "a_-9", "A", "abcdefgh", "abcdefg", "a\n", "ä", strings.Repeat("a", 32), strings.Repeat("f", 64), strings.Repeat("a", 65), strings.Repeat("g", 64)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, of := range map[string]struct {
			form  *regexp.Regexp
			valid func(string) error
		}{"token": {token, events.ValidToken}, "agent": {agent, events.ValidAgent}, "digest": {digest, events.ValidDigest}} {
			if got, want := of.valid(s) == nil, of.form.MatchString(s); got != want {
				t.Errorf("%q is a valid %s: %v, want %v", s, name, got, want)
			}
		}
	})
}

func BenchmarkReadStatus(b *testing.B) {
	data := []byte(slowly(b, example(b)))
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := events.ReadStatus(data); !ok {
			b.Fatal("not read")
		}
	}
}

func BenchmarkAppendStatus(b *testing.B) {
	s, room := example(b), make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := events.AppendStatus(room, &s); !ok {
			b.Fatal("not written")
		}
	}
}

func BenchmarkJobID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		events.JobID("hello-everywhere", 1, "amrqzcs6aqpwdvsh3k7b2", 0, "")
	}
}
