package publish

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"chandler/events"
	"chandler/events/manifest"
)

// Bounds of package.yaml. Reading YAML takes time that grows with the square of its lists' depth, so their
// beginnings are counted before.
const (
	maxSpec     = 256 << 10 // bytes
	maxBrackets = 4 << 10
	maxDashes   = 20_000
)

// spec is package.yaml.
type spec struct {
	API       string                    `yaml:"api"`
	Package   string                    `yaml:"package"`
	Version   string                    `yaml:"version"`
	Publisher string                    `yaml:"publisher"`
	Comment   string                    `yaml:"comment"`
	Category  string                    `yaml:"category"`
	Source    string                    `yaml:"source"`
	Files     []string                  `yaml:"files"`
	Programs  map[string]events.Program `yaml:"programs"`
	// Supersedes are the packages that this one takes the place of.
	Supersedes []events.Supersede `yaml:"supersedes"`
}

func (s spec) manifest(at time.Time) events.Manifest {
	return events.Manifest{API: s.API, Package: s.Package, Version: s.Version, Publisher: s.Publisher, Comment: s.Comment, Source: s.Source,
		Programs: s.Programs, Supersedes: s.Supersedes, Category: s.Category, Published: at}
}

func readSpec(root *os.Root, name string) (*document, spec, error) {
	f, err := root.Open(SpecName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, spec{}, fmt.Errorf("%s is not there: every package directory has one", name)
	}
	if err != nil {
		return nil, spec{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSpec+1))
	if err != nil {
		return nil, spec{}, err
	}
	return parseSpec(name, data)
}

// parseSpec reads package.yaml strictly. Whatever YAML would silently change is an error: unknown and doubled keys, numbers
// where text is meant, anchors, a second document.
func parseSpec(name string, data []byte) (*document, spec, error) {
	doc := &document{name: name, lines: strings.Split(string(data), "\n")}
	if len(data) > maxSpec {
		return nil, spec{}, fmt.Errorf("%s has more than %d bytes", name, maxSpec)
	}
	if strings.Count(string(data), "[") > maxBrackets || strings.Count(string(data), "- ") > maxDashes {
		return nil, spec{}, fmt.Errorf("%s has too many lists; files need not be listed where all of the directory are meant", name)
	}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, spec{}, doc.yamlError(err)
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil {
		return nil, spec{}, fmt.Errorf("%s is empty", name)
	}
	if len(file.Docs) > 1 {
		return nil, spec{}, fmt.Errorf("%s has %d documents: one package to a file", name, len(file.Docs))
	}
	doc.body = file.Docs[0].Body
	l := lint{doc: doc}
	ast.Walk(&l, doc.body)
	if len(l.problems) > 0 {
		return nil, spec{}, errors.Join(l.problems...)
	}
	var s spec
	if err := yaml.NodeToValue(doc.body, &s, yaml.Strict()); err != nil {
		return nil, spec{}, doc.yamlError(err)
	}
	if err := errors.Join(doc.addresses(&s)...); err != nil {
		return nil, spec{}, err
	}
	return doc, s, nil
}

// lint finds what YAML reads otherwise than it looks.
type lint struct {
	doc      *document
	problems []error
}

func (l *lint) add(n ast.Node, format string, args ...any) {
	l.problems = append(l.problems, l.doc.at(n, fmt.Sprintf(format, args...)))
}

// Visit looks at one node; the values of some keys are looked at with their key.
func (l *lint) Visit(n ast.Node) ast.Visitor {
	switch n := n.(type) {
	case *ast.MappingValueNode:
		key, text := n.Key.String(), scalarText(n.Value)
		switch {
		case (key == "version" || key == "min-version" || key == "max-version") && number(n.Value):
			l.add(n.Value, key+": %s is a number to YAML, which may change it: write  "+key+": %q", text, text)
			return nil
		case key == "installation-account" && empty(n.Value):
			l.add(n.Value, "installation-account is empty: name an account, or leave the line out")
		case key == "source" && empty(n.Value):
			l.add(n.Value, "source is empty: name an address such as smb://files.example/software/hello, or leave the line out")
		case key == "max-run-time":
			var d events.Duration
			if err := d.UnmarshalText([]byte(text)); err != nil {
				l.add(n.Value, "max-run-time: %s", err)
				return nil
			}
		case key == "disk-space":
			var b events.Bytes
			if err := b.UnmarshalText([]byte(text)); err != nil {
				l.add(n.Value, "disk-space: %s", err)
				return nil
			}
		}
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode, *ast.TagNode:
		l.add(n, "anchors, aliases and tags are not allowed here: write the value out")
		return nil
	case *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		l.add(n, "%s is a number to YAML, which may change it: write %q", scalarText(n), scalarText(n))
	case *ast.IntegerNode:
		text := scalarText(n)
		if v, err := strconv.ParseInt(text, 10, 64); err != nil || strconv.FormatInt(v, 10) != text {
			l.add(n, "%s is a number to YAML, which may change it: write %q", text, text)
		}
	case *ast.BoolNode:
		if text := scalarText(n); text != "true" && text != "false" {
			l.add(n, "%s: write true or false, or %q where text is meant", text, text)
		}
	case *ast.SequenceNode:
		for _, v := range n.Values {
			if v == nil || v.Type() == ast.NullType {
				l.add(n, "the list has an empty entry")
			}
		}
	}
	return l
}

// empty says whether a value is nothing, or a text of nothing.
func empty(n ast.Node) bool {
	text, quoted := n.(*ast.StringNode)
	return n == nil || n.Type() == ast.NullType || quoted && text.Value == ""
}

func number(n ast.Node) bool {
	switch n.(type) {
	case *ast.FloatNode, *ast.IntegerNode, *ast.InfinityNode, *ast.NanNode, *ast.BoolNode:
		return true
	}
	return false
}

// scalarText is a scalar as it is written, without quotes.
func scalarText(n ast.Node) string {
	if n == nil || n.GetToken() == nil {
		return ""
	}
	return n.GetToken().Value
}

// document is package.yaml with what is needed to point into it.
type document struct {
	name  string
	lines []string
	body  ast.Node
}

// at is an error that names file, line and column, and quotes the line.
func (d *document) at(n ast.Node, text string) error {
	if n == nil || n.GetToken() == nil {
		return fmt.Errorf("%s: %s", d.name, text)
	}
	p := n.GetToken().Position
	return d.quote(p.Line, p.Column, text)
}

func (d *document) quote(line, column int, text string) error {
	if line < 1 || line > len(d.lines) {
		return fmt.Errorf("%s: %s", d.name, text)
	}
	return fmt.Errorf("%s:%d:%d: %s\n    %d | %s", d.name, line, column, text, line, strings.TrimRight(d.lines[line-1], "\r"))
}

// yamlError says an error of the YAML library our way.
func (d *document) yamlError(err error) error {
	if e, ok := errors.AsType[yaml.Error](err); ok && e.GetToken() != nil {
		text := d.plainly(err, e.GetToken().Position)
		if text == "" {
			text = strings.Replace(e.GetMessage(), "unknown field", "unknown key", 1)
		}
		return d.quote(e.GetToken().Position.Line, e.GetToken().Position.Column, text)
	}
	return fmt.Errorf("%s: %w", d.name, err)
}

// find is the node at a path of [manifest.Problem], or the innermost one around it that is there; of a
// mapping it is the key that the mapping stands under.
func (d *document) find(where string) ast.Node {
	var best ast.Node
	n := d.body
	for part := range strings.SplitSeq(strings.NewReplacer("[", ".[", "'", "").Replace(strings.TrimPrefix(where, "$")), ".") {
		if part == "" {
			continue
		}
		key, value := child(n, part)
		if value == nil {
			break
		}
		n, best = value, value
		if _, ok := value.(ast.MapNode); ok && key != nil {
			best = key
		}
	}
	return best
}

// child is the entry of a mapping or, for a part like "[2]", of a sequence.
func child(n ast.Node, part string) (key, value ast.Node) {
	switch n := n.(type) {
	case ast.MapNode:
		for entry := n.MapRange(); entry.Next(); {
			if scalarText(entry.Key()) == part {
				return entry.Key(), entry.Value()
			}
		}
	case *ast.SequenceNode:
		if i, err := strconv.Atoi(strings.Trim(part, "[]")); err == nil && i < len(n.Values) {
			return nil, n.Values[i]
		}
	}
	return nil, nil
}

// errors points each problem to its line. Problems of files name a place in the manifest, where files are
// sorted; in package.yaml they stand where the administrator put them.
func (d *document) errors(problems []manifest.Problem, files []found) []error {
	errs := make([]error, len(problems))
	for i, p := range problems {
		where := p.Where
		var index int
		if _, err := fmt.Sscanf(where, "$.files[%d]", &index); err == nil && index < len(files) {
			where = files[index].where
		}
		errs[i] = d.at(d.find(where), p.Text)
	}
	return errs
}

func (d *document) expressions(m events.Manifest, check func(string) error) []error {
	if check == nil {
		return nil
	}
	var errs []error
	for _, name := range sortedPrograms(m) {
		if e := m.Programs[name].AppliesIf; e != "" {
			if err := check(e); err != nil {
				errs = append(errs, d.at(d.find("$.programs.'"+name+"'.applies-if"), fmt.Sprintf("program %s: applies-if: %s", name, err)))
			}
		}
	}
	return errs
}

func sortedPrograms(m events.Manifest) []string {
	names := make([]string, 0, len(m.Programs))
	for name := range m.Programs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
