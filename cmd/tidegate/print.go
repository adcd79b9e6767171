package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"
	"golang.org/x/term"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// Styles are used on a terminal only.
var (
	bold   = lipgloss.NewStyle().Bold(true)
	faint  = lipgloss.NewStyle().Faint(true)
	good   = lipgloss.NewStyle().Foreground(lipgloss.Color("2"))
	warn   = lipgloss.NewStyle().Foreground(lipgloss.Color("3"))
	bad    = lipgloss.NewStyle().Foreground(lipgloss.Color("1")).Bold(true)
	accent = lipgloss.NewStyle().Foreground(lipgloss.Color("6"))
)

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" }

var colour = isTerminal(os.Stdout)

func paint(style lipgloss.Style, text string) string {
	if !colour {
		return text
	}
	return style.Render(text)
}

// grid prints aligned columns; those in right are aligned to the right.
func grid(w io.Writer, header []string, rows [][]string, right ...int) {
	isRight := map[int]bool{}
	for _, c := range right {
		isRight[c] = true
	}
	for _, row := range rows {
		for i := range row {
			row[i] = visible(row[i], "\x1b") // our own styles have it, and no text that a service may choose
		}
	}
	t := table.New().Headers(header...).Rows(rows...).
		Border(lipgloss.HiddenBorder()).BorderTop(false).BorderBottom(false).BorderLeft(false).BorderRight(false).
		BorderHeader(false).BorderColumn(false).BorderRow(false).
		StyleFunc(func(row, col int) lipgloss.Style {
			style := lipgloss.NewStyle().PaddingRight(2)
			if isRight[col] {
				style = style.Align(lipgloss.Right)
			}
			if row == table.HeaderRow && colour {
				style = style.Faint(true)
			}
			return style
		})
	for line := range strings.Lines(t.Render()) {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
}

// visible writes out, as \u202e, what others may have put into a text to move the cursor,
// turn the writing round or hide something on a terminal. What is in keep stays.
func visible(text, keep string) string {
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) || strings.ContainsRune(keep, r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}

// count writes 1234567 as 1,234,567.
func count(n int64) string { return message.NewPrinter(language.English).Sprint(n) }

func capText(n *int64) string {
	if n == nil {
		return "none"
	}
	return count(*n)
}

func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// bar draws used against whole, 20 characters wide.
func bar(used, whole int64) string {
	const width = 20
	if whole <= 0 {
		return strings.Repeat("█", width)
	}
	filled := int(min(float64(used)/float64(whole), 1) * width)
	return strings.Repeat("█", filled) + strings.Repeat("░", width-filled)
}
