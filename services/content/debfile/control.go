package debfile

import (
	"errors"
	"fmt"
	"strings"
)

// parseControl reads the one stanza of a binary package's control file. Keys are in lower case, since field names are compared
// without regard to case; a value is its lines, of which there is at least one.
func parseControl(control []byte) (map[string][]string, error) {
	fields := make(map[string][]string)
	var last string
	for line := range strings.Lines(strings.ToValidUTF8(string(control), "\uFFFD")) {
		line = strings.TrimRight(line, " \t\r\n")
		switch {
		case line == "" && len(fields) == 0, strings.HasPrefix(line, "#"):
			continue
		case line == "":
			return fields, nil
		case line[0] == ' ' || line[0] == '\t':
			if last == "" {
				return nil, errors.New("it begins with a continuation line")
			}
			fields[last] = append(fields[last], strings.TrimLeft(line, " \t"))
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		name = strings.ToLower(strings.TrimRight(name, " \t"))
		if !ok || name == "" {
			return nil, fmt.Errorf("line %.64q is no field", line)
		}
		if _, twice := fields[name]; twice {
			return nil, fmt.Errorf("field %.64q is there twice", name)
		}
		fields[name] = []string{strings.TrimSpace(value)}
		last = name
	}
	return fields, nil
}

// folded is a value that may be wrapped anywhere, on one line; "" for a field that is not there.
func folded(lines []string) string {
	return strings.Join(strings.Fields(strings.Join(lines, " ")), " ")
}

func firstLine(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return lines[0]
}
