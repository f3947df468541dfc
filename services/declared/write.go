package declared

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"github.com/goccy/go-yaml"

	"chandler/events"
	"chandler/events/calendar"
)

// Write gives one document (a Package, Collection, Deployment or Limits) as [Parse] reads it.
func Write(document any) ([]byte, error) {
	text, err := yaml.MarshalWithOptions(document,
		yaml.CustomMarshaler[events.Duration](func(d events.Duration) ([]byte, error) { return []byte(calendar.Duration(d).String()), nil }),
		yaml.CustomMarshaler[string](func(s string) ([]byte, error) { return []byte(quoted(s)), nil }))
	if err != nil {
		return nil, fmt.Errorf("write a document: %w", err)
	}
	return text, nil
}

var (
	// plain texts are to YAML what they look like.
	plain = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_./@()&|"'=!<>+*%-]*(?: [A-Za-z0-9_./@()&|"'=!<>+*%-]+)*$`)
	// words are those that some reader takes for something else than text.
	words = regexp.MustCompile(`(?i)^(?:null|true|false|yes|no|on|off|y|n)$`)
)

// quoted writes a text so that it is read as the same: in quotes, unless there is nothing in it that anybody could take for
// something else.
func quoted(s string) string {
	if plain.MatchString(s) && !words.MatchString(s) {
		return s
	}
	var out strings.Builder
	out.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			out.WriteByte('\\')
			out.WriteRune(r)
		case r == '\n':
			out.WriteString(`\n`)
		case unicode.IsPrint(r):
			out.WriteRune(r)
		default:
			fmt.Fprintf(&out, `\U%08X`, r)
		}
	}
	out.WriteByte('"')
	return out.String()
}

// WriteAll gives several documents as one file.
func WriteAll(documents ...any) ([]byte, error) {
	var out bytes.Buffer
	for i, d := range documents {
		text, err := Write(d)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out.WriteString("---\n")
		}
		out.Write(text)
	}
	return out.Bytes(), nil
}

// OfCollection is the document of a collection.
func OfCollection(c events.Collection) Collection {
	return Collection{API: API, Collection: c.Name, Expression: c.Expression, Include: c.Include, Exclude: c.Exclude, Windows: c.Windows, Comment: c.Comment}
}

// OfLimits is the document of the fleet's limits.
func OfLimits(l events.Limits) Limits {
	return Limits{API: API, Limits: FleetLimits{l.MaxInFlight, l.MaxInFlightPerSite, l.RetriesPerMinute}}
}

// OfPackage is the document of a version that must be published with these very bytes.
func OfPackage(name, version, digest string) Package {
	return Package{API: API, Package: name, Version: version, Manifest: digest}
}
