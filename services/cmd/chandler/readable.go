package main

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"chandler/events"
)

// maxCommand is how much of a command is shown within a sentence, in characters.
const maxCommand = 120

var (
	quotedList = regexp.MustCompile(`\["(?:[^"\\]|\\.)*"(?: "(?:[^"\\]|\\.)*")*\]`)
	quotedWord = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	plainWord  = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./\\-]+$`)
	wireTime   = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)`)
)

// readable writes the argument lists in what an agent says (["sh" "-c" "exit 1"]) as people type commands,
// and shortens them.
func readable(text string) string {
	return quotedList.ReplaceAllStringFunc(text, func(list string) string {
		var argv []string
		for _, word := range quotedWord.FindAllString(list, -1) {
			plain, err := strconv.Unquote(word)
			if err != nil {
				return list
			}
			argv = append(argv, plain)
		}
		return shortened(shellLine(argv))
	})
}

// commandLine is a program's command as people type it.
func commandLine(c events.Command) string {
	if c.Line != "" {
		return c.Line
	}
	return shellLine(c.Argv)
}

// shellLine quotes the words of a command that a shell would take apart.
func shellLine(argv []string) string {
	words := make([]string, len(argv))
	for i, w := range argv {
		if !plainWord.MatchString(w) {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		words[i] = w
	}
	return strings.Join(words, " ")
}

// shortened is one line of at most maxCommand characters.
func shortened(line string) string {
	runes := []rune(strings.Join(strings.Fields(line), " "))
	if len(runes) <= maxCommand {
		return string(runes)
	}
	return string(runes[:maxCommand-1]) + "…"
}

// localTimes shows the times in what a service says as all others are shown.
func (a *app) localTimes(text string) string {
	return wireTime.ReplaceAllStringFunc(text, func(s string) string {
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return s
		}
		return a.longTime(t)
	})
}
