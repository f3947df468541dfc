package cmlog

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func parseAll(t testing.TB, text string) []Entry {
	t.Helper()
	var entries []Entry
	for e, err := range Parse(strings.NewReader(text)) {
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	return entries
}

func TestParse(t *testing.T) {
	sample := `<![LOG[Execution is complete for program WindowsNotepad. The exit code is 0, the execution status is Success]LOG]!><time="08:25:31.358+240" date="08-16-2020" component="execmgr" context="" type="1" thread="43032" file="execreqmgr.cpp:4238">` + "\r\n"
	sampleEntry := Entry{
		Time: time.Date(2020, 8, 16, 12, 25, 31, 358e6, time.UTC), Component: "execmgr", Type: Info, Thread: 43032, File: "execreqmgr.cpp:4238",
		Text: "Execution is complete for program WindowsNotepad. The exit code is 0, the execution status is Success",
	}
	withText := func(text string) Entry { e := sampleEntry; e.Text = text; return e }
	sampleTail := sample[strings.Index(sample, textEnd):]

	tests := []struct {
		name, log string
		want      []Entry
	}{
		{"an empty log has no entries", "", nil},
		{"a line of the original is read, its time being local plus the bias", sample, []Entry{sampleEntry}},
		{"a line without a line ending is complete", strings.TrimSpace(sample), []Entry{sampleEntry}},
		{"text may have several lines and quotes", "<![LOG[a \"b\"\r\n\r\n{ c; }" + sampleTail, []Entry{withText("a \"b\"\n\n{ c; }")}},
		{"a torn entry is skipped and the next one read", "<![LOG[torn te\n" + sample, []Entry{sampleEntry}},
		{"an entry torn without a line ending is skipped", "<![LOG[torn te" + sample, []Entry{sampleEntry}},
		{"an entry torn in its attributes is skipped", sample[:len(sample)-40] + "\n" + sample, []Entry{sampleEntry}},
		{"a torn entry at the end is skipped", sample + sample[:30], []Entry{sampleEntry}},
		{"other programs' lines are skipped", "hello\n\x00\xff\n" + sample + "$$<x>\n", []Entry{sampleEntry}},
		{"an end without a beginning is skipped", "stray" + sampleTail + sample, []Entry{sampleEntry}},
		{"an impossible date is skipped", strings.Replace(sample, "08-16-2020", "02-30-2020", 1) + sample, []Entry{sampleEntry}},
		{"an impossible bias is skipped", strings.Replace(sample, "+240", "+2400", 1) + sample, []Entry{sampleEntry}},
		{"an entry over the limit is skipped", "<![LOG[" + strings.Repeat("x", MaxEntry) + sampleTail + sample, []Entry{sampleEntry}},
		{"an entry of many lines over the limit is skipped", "<![LOG[" + strings.Repeat("x\n", MaxEntry/2+1) + sampleTail + sample, []Entry{sampleEntry}},
		{"control characters of a foreign log do not reach the terminal", "<![LOG[a\x1b[31mb" + sampleTail, []Entry{withText("a\uFFFD[31mb")}},
		{
			"a legacy line is local time and coloured by its words",
			"Warning - could not read files from site TB1 (#2147942405) $$<CCIM32><Tue Jan 04 15:19:23.375 2000><thread=112 (0x70)>\n",
			[]Entry{{
				Time: time.Date(2000, 1, 4, 15, 19, 23, 375e6, time.Local), Component: "CCIM32", Type: Warning, Thread: 112,
				Text: "Warning - could not read files from site TB1 (#2147942405)",
			}},
		},
		{
			"a legacy line's tilde is part of its text",
			"SCHEDULER   : Slow link detected~  $$<APM><Thu Apr 22 09:36:15.685 1999><thread=561 (0x231)>\r\n",
			[]Entry{{
				Time: time.Date(1999, 4, 22, 9, 36, 15, 685e6, time.Local), Component: "APM", Type: Info, Thread: 561,
				Text: "SCHEDULER   : Slow link detected~",
			}},
		},
		{
			"a later server's line has its bias",
			"Stopped~  $$<SMS_EXECUTIVE><08-16-2020 08:25:31.358+240><thread=7 (0x7)>\n",
			[]Entry{{
				Time: sampleEntry.Time, Component: "SMS_EXECUTIVE", Type: Info, Thread: 7, Text: "Stopped~",
			}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, parseAll(t, tt.log)); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseYieldsTheReadersErrorLast(t *testing.T) {
	broken := errors.New("disk is gone")
	var got []error
	for _, err := range Parse(iotest.ErrReader(broken)) {
		got = append(got, err)
	}
	if len(got) != 1 || !errors.Is(got[0], broken) {
		t.Errorf("got errors %v, want only %v", got, broken)
	}
}

func TestParseStopsWhenTheCallerDoes(t *testing.T) {
	line := string(CCM.encode(Entry{Text: "x"}.Clean(), time.UTC))
	n := 0
	for range Parse(strings.NewReader(line + line + line)) {
		n++
		break
	}
	if n != 1 {
		t.Errorf("got %d entries after break, want 1", n)
	}
}

// drawEntry favours what could confuse a reader: marks, backslashes, line
// endings, control characters, invalid UTF-8.
func drawEntry(t *rapid.T) Entry {
	piece := rapid.OneOf(
		rapid.SampledFrom([]string{
			textStart, textEnd, `]\LOG]!>`, `<!\[LOG[`, `]\\LOG]!>`, "\n", "\r\n", "\r", "\t", "\x00", "\x1b[0m", "\xff", `\`, "]", "<!", "LOG]!>", "[LOG[",
			legacyMark, "  ", "~", "error", "WARN", `<time="08:25:31.358+240" date="08-16-2020" component="" context="" type="1" thread="1" file="">`,
			"$$<APM><Thu Apr 22 09:36:15.685 1999><thread=561 (0x231)>",
		}),
		rapid.String(),
	)
	text := func(label string) string {
		return strings.Join(rapid.SliceOfN(piece, 0, 8).Draw(t, label), "")
	}
	return Entry{
		Time:      time.UnixMilli(rapid.Int64Range(-1e12, 4e12).Draw(t, "time")),
		Component: text("component"), Context: text("context"), File: text("file"), Text: text("text"),
		Type:   Type(rapid.IntRange(-1, 5).Draw(t, "type")),
		Thread: rapid.IntRange(-1, 1<<40).Draw(t, "thread"),
	}
}

func TestEveryEntryIsReadBackAsItsCleanSelf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOfN(rapid.Custom(drawEntry), 1, 4).Draw(t, "entries")
		zone := time.FixedZone("", rapid.IntRange(-14*3600, 14*3600).Draw(t, "offset"))
		var log bytes.Buffer
		var want []Entry
		for _, e := range entries {
			e = e.Clean()
			if diff := cmp.Diff(e, e.Clean()); diff != "" {
				t.Fatalf("a clean entry changes when cleaned:\n%s", diff)
			}
			want = append(want, e)
			log.Write(CCM.encode(e, zone))
		}
		var got []Entry
		for e := range Parse(&log) {
			got = append(got, e)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("entries (-written +read):\n%s", diff)
		}
	})
}

func TestEveryLegacyEntryIsReadBackAsOneLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawEntry(t)
		// Noon in January: the format has no zone, so an hour in which clocks go
		// back could not be told apart.
		e.Time = time.Date(rapid.IntRange(1970, 2100).Draw(t, "year"), 1, 15, 12, 0, 0, 5e6, time.Local)
		e = e.Clean()
		line := Legacy.encode(e, time.Local)
		if n := bytes.Count(line, []byte("\n")); n != 1 {
			t.Fatalf("%d line endings in %q", n, line)
		}
		text := legacyText(e)
		want := []Entry{{Time: e.Time, Component: e.Component, Thread: e.Thread, Type: typeByWords(text), Text: text}}
		if want[0].Type < e.Type {
			t.Fatalf("type %d is shown as %d: %q", e.Type, want[0].Type, text)
		}
		var got []Entry
		for e := range Parse(bytes.NewReader(line)) {
			got = append(got, e)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("entries of %q (-written +read):\n%s", line, diff)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`<![LOG[a]\LOG]!>b]LOG]!><time="08:25:31.358+240" date="08-16-2020" component="execmgr" context="" type="1" thread="43032" file="x.go:1">`))
	f.Add([]byte("Slow link detected~  $$<APM><Thu Apr 22 09:36:15.685 1999><thread=561 (0x231)>\n<![LOG[torn\nx"))
	f.Add([]byte("x $$<A><08-16-2020 08:25:31.358-060><thread=1>\r\n"))
	f.Fuzz(func(t *testing.T, log []byte) {
		if len(log) > 1<<20 {
			t.Skip("more than the fuzzer need try")
		}
		var first []Entry
		var again bytes.Buffer
		for e, err := range Parse(bytes.NewReader(log)) {
			if err != nil {
				t.Fatal(err)
			}
			first = append(first, e)
			again.Write(CCM.encode(e, time.UTC))
		}
		var second []Entry
		for e := range Parse(&again) {
			second = append(second, e)
		}
		if diff := cmp.Diff(first, second); diff != "" {
			t.Errorf("entries change when written and read again (-first +second):\n%s", diff)
		}
	})
}
