package msilog

import (
	"fmt"
	"regexp"
	"strings"
)

// The forms of lines that say that something failed. The words around the numbers are in the machine's language. All are
// anchored, so that most of the many lines of a log are refused at their first letters.
var (
	// Error 1722. There is a problem …
	numbered = regexp.MustCompile(`^(\pL[\pL ]*) (\d{4,5})[.。] ?(.+)$`)
	// CustomAction DoThing returned actual error code 1603 (note this may not be 100% accurate …)
	customAction = regexp.MustCompile(`^CustomAction (\S+) returned actual error code (-?\d+)\b(.*)$`)
	// Action ended 10:00:02: InstallExecute. Return value 3.
	actionEnded = regexp.MustCompile(`^\pL[\pL ']* \d{1,2}:\d{2}:\d{2}\s?: (\S+)\. \D+(\d)\.$`)
	// MSI (c) (A4:C8) [10:00:03:123]: MainEngineThread is returning 1603
	engine = regexp.MustCompile(`^MainEngineThread is returning (\d{1,5})$`)
)

// spoken takes the time off a line of the engine, and the product off its message:
// MSI (s) (B0:54) [10:00:02:789]: Product: Name -- This application needs Windows 12.
func spoken(line string) (text string, ofProduct bool) {
	if !strings.HasPrefix(line, "MSI (") {
		return line, false
	}
	_, line, _ = strings.Cut(line, "]: ")
	product, message, ofProduct := strings.Cut(line, " -- ")
	if ofProduct && strings.Contains(product, ": ") {
		return message, true
	}
	return line, false
}

// harmless begin the words before the number of a message that stops nothing: Info, Warning and their like elsewhere.
var harmless = []string{"info", "warn", "avert", "avvis", "advert", "aviso", "waarschuw", "varning", "advarsel", "ostrzez"}

// finding is the first failure of a log, as far as it is known. What was found is forgotten again when an action ends well:
// then it was ignored. It is final with the first action that failed.
type finding struct {
	message string // of the installer, with a number
	remark  string // of the installer, without one: of a failure only if an action fails
	custom  string // what a custom action returned
	action  string // the one that failed: final
	engine  string // the code that all ended with
}

// mark says what a line is to the excerpt.
type mark int

const (
	ordinary mark = iota
	begins        // something failed here, first as far as is known
	ignored       // what began was ignored
	settled       // this is the end of the action that failed
)

// look learns from the next line.
func (f *finding) look(line string) mark {
	text, ofProduct := spoken(line)
	if m := engine.FindStringSubmatch(text); m != nil {
		f.engine = m[1]
		return ordinary
	}
	if f.action != "" {
		return ordinary
	}
	if m := actionEnded.FindStringSubmatch(text); m != nil {
		return f.ended(m[1], m[2])
	}
	first := !f.any()
	if !f.learn(text, ofProduct) || !first {
		return ordinary
	}
	return begins
}

func (f *finding) any() bool { return f.message != "" || f.remark != "" || f.custom != "" }

// ended: an action returned 1 for success, 2 for cancelled, 3 for failure.
func (f *finding) ended(action, value string) mark {
	switch value {
	case "2", "3":
		f.action = action
		return settled
	case "1":
		if f.any() {
			f.message, f.remark, f.custom = "", "", ""
			return ignored
		}
	}
	return ordinary
}

// learn keeps what the text says of a failure, the first of each kind.
func (f *finding) learn(text string, ofProduct bool) bool {
	if m := customAction.FindStringSubmatch(text); m != nil {
		if strings.Contains(m[3], "continue marking") || m[2] == "0" { // the package says that its failure does not matter
			return false
		}
		if f.custom == "" {
			f.custom = fmt.Sprintf("custom action %s returned %s", m[1], m[2])
		}
		return true
	}
	m := numbered.FindStringSubmatch(text)
	switch {
	case m != nil && isHarmless(m[1]), m == nil && !ofProduct:
		return false
	case m != nil && f.message == "":
		f.message = fmt.Sprintf("%s %s: %s", m[1], m[2], strings.TrimSpace(m[3]))
	case m == nil && f.remark == "":
		f.remark = strings.TrimSpace(text)
	}
	return true
}

func isHarmless(words string) bool {
	for _, begin := range harmless {
		if strings.HasPrefix(strings.ToLower(words), begin) {
			return true
		}
	}
	return false
}

// maxSentence bounds an explanation, in bytes.
const maxSentence = 600

// sentence is the explanation; "" where nothing failed, or what did was no matter in the end.
func (f *finding) sentence() string {
	switch f.engine {
	case "0", "1641", "3010":
		return ""
	}
	message := f.message
	if message == "" && f.action != "" {
		message = f.remark
	}
	var said []string
	for _, part := range []string{message, f.custom} {
		if part != "" {
			said = append(said, strings.TrimRight(part, ". "))
		}
	}
	text := strings.Join(said, "; ")
	switch {
	case f.action != "" && text != "":
		text = "Windows Installer stopped in " + f.action + ": " + text
	case f.action != "":
		text = "Windows Installer stopped in " + f.action
	case text != "":
		text = "Windows Installer: " + text
	case f.engine != "":
		text = "Windows Installer ended with " + f.engine
	}
	return cut(text, maxSentence)
}
