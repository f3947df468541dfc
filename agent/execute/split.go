package execute

import (
	"errors"
	"strings"
)

const (
	maxLine         = 32 << 10 // what Windows can take; nothing sensible is longer
	posixBlanks     = " \t\n"
	windowsBlanks   = " \t"
	escapedInQuotes = "\"\\$`\n"
)

var (
	errLineTooLong = errors.New("over 32 KiB")
	errOpenQuote   = errors.New("a quote is not closed")
	errOpenEscape  = errors.New("a backslash at the end")
	errNUL         = errors.New("holds a NUL")
	errNoWords     = errors.New("holds no words")
)

func checkLine(line string) error {
	if len(line) > maxLine {
		return errLineTooLong
	}
	if strings.IndexByte(line, 0) >= 0 {
		return errNUL
	}
	return nil
}

// splitPOSIX splits into words by the quoting rules of sh (single quotes, double quotes, backslash, line continuation).
// Nothing is expanded: $, *, ~, |, ; and # are letters.
func splitPOSIX(line string) ([]string, error) {
	if err := checkLine(line); err != nil {
		return nil, err
	}
	var words []string
	var word strings.Builder
	inWord, quote := false, byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote == 0 && strings.IndexByte(posixBlanks, c) >= 0:
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
			continue
		case c == quote && quote != 0:
			quote = 0
			continue
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case c == '\\' && quote != '\'':
			if i++; i == len(line) {
				return nil, errOpenEscape
			}
			if quote == '"' && strings.IndexByte(escapedInQuotes, line[i]) < 0 {
				word.WriteByte('\\')
			}
			if line[i] == '\n' {
				continue
			}
			word.WriteByte(line[i])
		default:
			word.WriteByte(c)
		}
		inWord = true
	}
	if quote != 0 {
		return nil, errOpenQuote
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, errNoWords
	}
	return words, nil
}

// splitWindows splits as CommandLineToArgvW does: the program's name ends at a quote or a blank and knows no escapes; in the
// rest 2n backslashes and a quote are n backslashes and a quoting one, 2n+1 are n and a letter, and two quotes within quotes
// are one letter that ends the quoting.
func splitWindows(line string) ([]string, error) {
	if err := checkLine(line); err != nil {
		return nil, err
	}
	line = strings.TrimLeft(line, windowsBlanks)
	if line == "" {
		return nil, errNoWords
	}
	name, rest, err := cutProgram(line)
	if err != nil {
		return nil, err
	}
	words := []string{name}
	for rest = strings.TrimLeft(rest, windowsBlanks); rest != ""; rest = strings.TrimLeft(rest, windowsBlanks) {
		var word string
		word, rest = cutArgument(rest)
		words = append(words, word)
	}
	return words, nil
}

// cutProgram splits off the program's name of a Windows command line without leading blanks.
func cutProgram(line string) (name, rest string, err error) {
	if line[0] == '"' {
		name, rest, closed := strings.Cut(line[1:], `"`)
		if !closed {
			return "", "", errOpenQuote
		}
		return name, rest, nil
	}
	if end := strings.IndexAny(line, windowsBlanks); end >= 0 {
		return line[:end], line[end:], nil
	}
	return line, "", nil
}

func cutArgument(line string) (word, rest string) {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(line); i++ {
		slashes := 0
		for ; i < len(line) && line[i] == '\\'; i++ {
			slashes++
		}
		switch {
		case i == len(line):
			b.WriteString(strings.Repeat(`\`, slashes))
		case line[i] == '"':
			b.WriteString(strings.Repeat(`\`, slashes/2))
			switch {
			case slashes%2 == 1:
				b.WriteByte('"')
			case quoted && i+1 < len(line) && line[i+1] == '"':
				b.WriteByte('"')
				i++
				quoted = false
			default:
				quoted = !quoted
			}
		default:
			b.WriteString(strings.Repeat(`\`, slashes))
			if !quoted && strings.IndexByte(windowsBlanks, line[i]) >= 0 {
				return b.String(), line[i:]
			}
			b.WriteByte(line[i])
		}
	}
	return b.String(), ""
}
