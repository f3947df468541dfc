package execute

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestALineIsSplitByTheQuotingRulesOfSh(t *testing.T) {
	for _, test := range []struct {
		name, line string
		want       []string
		err        error
	}{
		{"words", "dpkg -i  a.deb\t\n", []string{"dpkg", "-i", "a.deb"}, nil},
		{"quotes join", `a"b c"'d e'f`, []string{"ab cd ef"}, nil},
		{"empty words", `a "" ''`, []string{"a", "", ""}, nil},
		{"backslashes", `a\ b "c\"d\\e\f" 'g\h'`, []string{"a b", `c"d\e\f`, `g\h`}, nil},
		{"a continued line", "a\\\nb", []string{"ab"}, nil},
		{"nothing is expanded", "$HOME *.deb ~ `x` ; | & > #y %n {a,b}", []string{"$HOME", "*.deb", "~", "`x`", ";", "|", "&", ">", "#y", "%n", "{a,b}"}, nil},
		{"letters of all scripts", "två 'ord är' 日本", []string{"två", "ord är", "日本"}, nil},
		{"an open quote", `a "b`, nil, errOpenQuote},
		{"an open single quote", `a 'b`, nil, errOpenQuote},
		{"an open escape", `a \`, nil, errOpenEscape},
		{"nothing", " \t", nil, errNoWords},
		{"a NUL", "a\x00b", nil, errNUL},
		{"too much", strings.Repeat("x", maxLine+1), nil, errLineTooLong},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := splitPOSIX(test.line)
			if diff := cmp.Diff(test.want, got); diff != "" || !errors.Is(err, test.err) {
				t.Errorf("%v; %s", err, diff)
			}
		})
	}
}

func TestALineIsSplitAsCommandLineToArgvW(t *testing.T) {
	for _, test := range []struct {
		name, line string
		want       []string
		err        error
	}{
		{"words", `  msiexec /i  a.msi `, []string{"msiexec", "/i", "a.msi"}, nil},
		{"a quoted program without escapes", `"C:\Program Files\a\" /q`, []string{`C:\Program Files\a\`, "/q"}, nil},
		{"a property in quotes", `msiexec /i a.msi DIR="C:\My App\"`, []string{"msiexec", "/i", "a.msi", `DIR=C:\My App"`}, nil},
		{"even backslashes and a quote", `p "a\\" b`, []string{"p", `a\`, "b"}, nil},
		{"odd backslashes and a quote", `p a\\\"b c`, []string{"p", `a\"b`, "c"}, nil},
		{"backslashes without a quote", `p \\files\apps\x`, []string{"p", `\\files\apps\x`}, nil},
		{"two quotes within quotes", `p "a""b c`, []string{"p", `a"b`, "c"}, nil},
		{"empty arguments", `p "" ""`, []string{"p", "", ""}, nil},
		{"percent signs and letters of all scripts", `p %n %1 två 日本`, []string{"p", "%n", "%1", "två", "日本"}, nil},
		{"an open quote in the arguments ends with the line", `p "a b`, []string{"p", "a b"}, nil},
		{"an open quote in the program", `"p a`, nil, errOpenQuote},
		{"nothing", "  ", nil, errNoWords},
		{"a NUL", "a\x00b", nil, errNUL},
		{"too much", strings.Repeat("x", maxLine+1), nil, errLineTooLong},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := splitWindows(test.line)
			if diff := cmp.Diff(test.want, got); diff != "" || !errors.Is(err, test.err) {
				t.Errorf("%v; %s", err, diff)
			}
		})
	}
}

// FuzzSplitPOSIX shows that quoted words come back, and that no line of any bytes does worse than an error.
func FuzzSplitPOSIX(f *testing.F) {
	f.Add(`a "b c" 'd'`, "x y")
	f.Add(`\`, `'"\`)
	f.Fuzz(func(t *testing.T, line, word string) {
		if words, err := splitPOSIX(line); err == nil && len(words) == 0 {
			t.Errorf("no words and no error from %q", line)
		}
		if strings.IndexByte(word, 0) >= 0 || len(word) > 1000 {
			t.Skip()
		}
		quoted := "p '" + strings.ReplaceAll(word, "'", `'\''`) + "' q"
		got, err := splitPOSIX(quoted)
		if diff := cmp.Diff([]string{"p", word, "q"}, got); diff != "" || err != nil {
			t.Errorf("%q: %v; %s", quoted, err, diff)
		}
	})
}

// FuzzSplitWindows does the same for the other rule.
func FuzzSplitWindows(f *testing.F) {
	f.Add(`a "b c" d`, `x\ "y`)
	f.Add(`"`, `\\"`)
	f.Fuzz(func(t *testing.T, line, word string) {
		if words, err := splitWindows(line); err == nil && len(words) == 0 {
			t.Errorf("no words and no error from %q", line)
		}
		if strings.IndexByte(word, 0) >= 0 || len(word) > 1000 {
			t.Skip()
		}
		quoted := "p " + quoteWindows(word) + " q"
		got, err := splitWindows(quoted)
		if diff := cmp.Diff([]string{"p", word, "q"}, got); diff != "" || err != nil {
			t.Errorf("%q: %v; %s", quoted, err, diff)
		}
	})
}

// quoteWindows is the inverse of the rule.
func quoteWindows(word string) string {
	var b strings.Builder
	b.WriteByte('"')
	slashes := 0
	for i := range len(word) {
		switch word[i] {
		case '\\':
			slashes++
			continue
		case '"':
			b.WriteString(strings.Repeat(`\`, 2*slashes+1))
		default:
			b.WriteString(strings.Repeat(`\`, slashes))
		}
		slashes = 0
		b.WriteByte(word[i])
	}
	b.WriteString(strings.Repeat(`\`, 2*slashes) + `"`)
	return b.String()
}
