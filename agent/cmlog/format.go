package cmlog

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Format is the way entries are laid out in a file.
type Format int

const (
	// CCM is the format of advanced clients, which CMTrace shows best:
	//
	//	<![LOG[text]LOG]!><time="08:25:31.358+240" date="08-16-2020" component="execmgr" context="" type="1" thread="43032" file="run.go:38">
	//
	// The time is local, the signed bias is in minutes, and UTC = local + bias.
	CCM Format = iota
	// Legacy is the format of legacy clients:
	//
	//	text  $$<COMPONENT><Thu Apr 22 09:36:15.685 1999><thread=561 (0x231)>
	//
	// It has no place for type, context, file and zone, and is one line an entry: a
	// newline becomes "~", as in the original. Viewers tell the type by the words
	// "error" and "warn", so a warning or an error that lacks its word gets it in front.
	Legacy
)

const (
	textStart    = "<![LOG["
	textEnd      = "]LOG]!>"
	legacyMark   = "$$<"
	legacyTime   = "Mon Jan 02 15:04:05.000 2006"
	ccmTime      = "15:04:05.000"
	ccmDate      = "01-02-2006"
	legacySpaces = "  "
)

// Text may hold the marks that begin and end an entry: a program's output is
// logged, and whoever writes it must not be able to forge entries. A backslash is
// put into each mark ("]\LOG]!>", "<!\[LOG["), and one more into each mark that has
// backslashes already, so that the reader can take exactly one away again.
var (
	marks        = regexp.MustCompile(`(<!|\])(\\*)(\[LOG\[|LOG\]!>)`)
	escapedMarks = regexp.MustCompile(`(<!|\])\\(\\*)(\[LOG\[|LOG\]!>)`)
)

func escape(text string) string {
	if !strings.Contains(text, "LOG") {
		return text
	}
	return marks.ReplaceAllString(text, `${1}\${2}${3}`)
}

func unescape(text string) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	return escapedMarks.ReplaceAllString(text, `${1}${2}${3}`)
}

// encode returns the clean entry e with its line ending, its time told in zone.
func (f Format) encode(e Entry, zone *time.Location) []byte {
	if f == Legacy {
		return encodeLegacy(e, zone)
	}
	_, offset := e.Time.In(zone).Zone()
	bias := -offset / 60
	// Not In(zone): a zone with odd seconds would not agree with a bias in minutes.
	local := e.Time.UTC().Add(-time.Duration(bias) * time.Minute)
	return fmt.Appendf(nil, "%s%s%s<time=\"%s%+04d\" date=\"%s\" component=\"%s\" context=\"%s\" type=\"%d\" thread=\"%d\" file=\"%s\">\n",
		textStart, escape(e.Text), textEnd, local.Format(ccmTime), bias, local.Format(ccmDate),
		e.Component, e.Context, e.Type, e.Thread, e.File)
}

func encodeLegacy(e Entry, zone *time.Location) []byte {
	text := legacyText(e)
	return fmt.Appendf(nil, "%s%s%s%s><%s><thread=%d (0x%X)>\n",
		escape(text), legacySpaces, legacyMark, e.Component, e.Time.In(zone).Format(legacyTime), e.Thread, e.Thread)
}

func legacyText(e Entry) string {
	text := e.Text
	if typeByWords(text) < e.Type {
		text = map[Type]string{Warning: "WARNING: ", Error: "ERROR: "}[e.Type] + text
	}
	return strings.ReplaceAll(text, "\n", "~")
}

// typeByWords is how viewers colour lines without a type.
func typeByWords(text string) Type {
	text = strings.ToLower(text)
	switch {
	case strings.Contains(text, "error"):
		return Error
	case strings.Contains(text, "warn"):
		return Warning
	}
	return Info
}
