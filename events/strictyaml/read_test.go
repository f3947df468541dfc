package strictyaml

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type thing struct {
	Name  string   `yaml:"name"`
	Count int      `yaml:"count"`
	Sizes []string `yaml:"sizes"`
	Inner *inner   `yaml:"inner"`
	More  `yaml:",inline"`
}

type inner struct {
	Flag bool  `yaml:"flag"`
	Word vowel `yaml:"word"`
}

type More struct {
	MaxSize int `yaml:"max-size"`
}

// vowel reads itself.
type vowel string

func (v *vowel) UnmarshalText(text []byte) error {
	if !strings.Contains("aeiou", string(text)) {
		return errNoVowel
	}
	*v = vowel(text)
	return nil
}

type constant string

func (c constant) Error() string { return string(c) }

const errNoVowel = constant("it is no vowel")

func TestWhatIsReadAndWhatIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"all of it":                        {"name: a\ncount: 3\nsizes: [s, l]\ninner: {flag: true, word: e}\nmax-size: 4", ""},
		"an unknown key":                   {"nam: a", "f:1:1: unknown key \"nam\": did you mean name?\n    1 | nam: a"},
		"an unknown key that is inlined":   {"maxsize: 4", "did you mean max-size?"},
		"an unknown key within":            {"inner:\n  flg: true", "f:2:3: unknown key \"flg\": did you mean flag?"},
		"a key twice":                      {"name: a\nname: b", "f:2:1"},
		"a list where text is":             {"name: [a]", "name: write text"},
		"text where a number is":           {"count: many", "count: write a whole number"},
		"what its own type refuses":        {"inner: {word: x}", "f:1:15: it is no vowel"},
		"a number where text is":           {"name: 1.10", `write "1.10"`},
		"an octal number":                  {"count: 010", "is a number to YAML"},
		"a truth value of old":             {"inner: {flag: True}", "write true or false"},
		"a version that is a number":       {"version: 2.10", `write  version: "2.10"`},
		"an alias":                         {"name: &n a\nsizes: [*n]", "anchors, aliases and tags"},
		"a tag":                            {"name: !!str 1", "anchors, aliases and tags"},
		"an empty entry":                   {"sizes:\n  - a\n  -\n", "the list has an empty entry"},
		"what the caller's rule refuses":   {"name: forbidden", "f:1:7: not that name"},
		"an empty document before another": {"name: a\n---\n\n# nothing\n---\nname: b", "f:5:1: the document before this is empty"},
		"what is no mapping, where one is": {"inner: 3", "inner: write keys"},
	} {
		t.Run(name, func(t *testing.T) {
			docs, err := Parse("f", []byte(c.text), func(key string, v Value) (string, bool) {
				if key == "name" && v.Text == "forbidden" {
					return "not that name", true
				}
				return "", false
			})
			var read thing
			if err == nil {
				err = docs[0].Into(&read)
			}
			if c.want == "" && (err != nil || read.MaxSize != 4 || read.Inner.Word != "e") {
				t.Fatalf("%+v, %v", read, err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestDocumentsOfOneFilePointIntoIt(t *testing.T) {
	docs, err := Parse("f", []byte("# first\n---\nname: a\n---\n# second\nname: b\nsizes: [x, y]\n---\n"), nil)
	if err != nil || len(docs) != 2 {
		t.Fatalf("%d documents, %v", len(docs), err)
	}
	if diff := cmp.Diff([]string{"name", "sizes"}, docs[1].Keys()); diff != "" || docs[1].Text("name") != "b" || docs[1].Text("count") != "" {
		t.Error(diff)
	}
	for where, want := range map[string]string{"$.sizes[1]": "f:7:12: no", "$.sizes[7]": "f:7:8: no", "$.nowhere": "f:6:1: no", "$": "f:6:1: no"} {
		if err := docs[1].At(where, "no"); !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", where, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("name: a\ninner: {flag: true}\n---\nsizes: [a, b]\n")
	f.Add("name: &a [*a]\n")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4<<10 {
			return
		}
		docs, err := Parse("f", []byte(text), nil)
		if err != nil {
			return
		}
		for _, d := range docs {
			var v thing
			_ = d.Into(&v)
			if err := d.At("$.inner.word", "x"); !strings.HasPrefix(err.Error(), "f") {
				t.Fatalf("an error without its file: %v", err)
			}
		}
	})
}
