package demo

// Paint colours text for a terminal, or leaves it as it is.
type Paint struct{ codes map[string]string }

// Terminal paints for a terminal; the zero Paint does not.
func Terminal() Paint {
	return Paint{codes: map[string]string{"bold": "\x1b[1m", "open": "\x1b[32m", "closed": "\x1b[90m", "wrong": "\x1b[1;37;41m"}}
}

func (p Paint) paint(kind, text string) string {
	code, ok := p.codes[kind]
	if !ok {
		return text
	}
	return code + text + "\x1b[0m"
}

// Bold is for titles.
func (p Paint) Bold(text string) string { return p.paint("bold", text) }

// Open, Closed and Wrong are for cells.
func (p Paint) Open(text string) string   { return p.paint("open", text) }
func (p Paint) Closed(text string) string { return p.paint("closed", text) }
func (p Paint) Wrong(text string) string  { return p.paint("wrong", text) }
