package publish

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/strictyaml"
)

// maxSpec bounds package.yaml, in bytes.
const maxSpec = 256 << 10

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

// parseSpec reads package.yaml strictly.
func parseSpec(name string, data []byte) (*document, spec, error) {
	if len(data) > maxSpec {
		return nil, spec{}, fmt.Errorf("%s has more than %d bytes", name, maxSpec)
	}
	docs, err := strictyaml.Parse(name, data, rule)
	switch {
	case errors.Is(err, strictyaml.ErrTooDeep):
		return nil, spec{}, fmt.Errorf("%w; files need not be listed where all of the directory are meant", err)
	case err != nil:
		return nil, spec{}, err
	case len(docs) == 0:
		return nil, spec{}, fmt.Errorf("%s is empty", name)
	case len(docs) > 1:
		return nil, spec{}, fmt.Errorf("%s has %d documents: one package to a file", name, len(docs))
	}
	doc := &document{docs[0], name}
	var s spec
	if err := doc.Into(&s); err != nil {
		return nil, spec{}, err
	}
	if err := errors.Join(doc.addresses(&s)...); err != nil {
		return nil, spec{}, err
	}
	return doc, s, nil
}

// rule says what is wrong with the values of some keys.
func rule(key string, v strictyaml.Value) (problem string, done bool) {
	switch {
	case (key == "min-version" || key == "max-version") && v.Number:
		return fmt.Sprintf("%s: %s is a number to YAML, which may change it: write  %s: %q", key, v.Text, key, v.Text), true
	case key == "installation-account" && v.Empty:
		return "installation-account is empty: name an account, or leave the line out", false
	case key == "source" && v.Empty:
		return "source is empty: name an address such as smb://files.example/software/hello, or leave the line out", false
	case key == "max-run-time":
		return misread(key, new(events.Duration).UnmarshalText([]byte(v.Text)))
	case key == "disk-space":
		return misread(key, new(events.Bytes).UnmarshalText([]byte(v.Text)))
	}
	return "", false
}

func misread(key string, err error) (problem string, done bool) {
	if err == nil {
		return "", false
	}
	return fmt.Sprintf("%s: %s", key, err), true
}

// document is package.yaml with what is needed to point into it.
type document struct {
	*strictyaml.Document
	name string
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
		errs[i] = d.At(where, p.Text)
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
				errs = append(errs, d.At("$.programs.'"+name+"'.applies-if", fmt.Sprintf("program %s: applies-if: %s", name, err)))
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
