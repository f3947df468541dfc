package userrunner

import (
	"io"
	"os"
	"regexp"
	"strings"
)

const (
	standardPath   = "/usr/local/bin:/usr/bin:/bin"
	maxLocale      = 64 << 10
	standardLocale = "LANG=C.UTF-8"
)

var (
	localeName  = regexp.MustCompile(`^(LANG|LANGUAGE|LC_[A-Z]+)$`)
	localeValue = regexp.MustCompile(`^[A-Za-z0-9_.@:-]+$`)
)

// locale is the machine's, from the first of the files in which systems keep it.
func locale() []string {
	for _, path := range []string{"/etc/locale.conf", "/etc/default/locale"} {
		file, err := os.Open(path)
		if err != nil {
			continue
		}
		data, err := io.ReadAll(io.LimitReader(file, maxLocale))
		file.Close()
		if env := parseLocale(string(data)); err == nil && len(env) > 0 {
			return env
		}
	}
	return []string{standardLocale}
}

// parseLocale takes the assignments of locale variables, and nothing else that a shell may find in such a file. There is
// always a LANG among them, if there is anything.
func parseLocale(text string) (env []string) {
	hasLanguage := false
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		if localeName.MatchString(name) && localeValue.MatchString(value) {
			env = append(env, name+"="+value)
			hasLanguage = hasLanguage || name == "LANG"
		}
	}
	if len(env) > 0 && !hasLanguage {
		env = append(env, standardLocale)
	}
	return env
}
