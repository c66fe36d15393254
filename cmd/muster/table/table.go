// Package table shows lists to people and to programs: as a table with a frame,
// without one, as CSV, JSON or YAML.
//
// It formats cells that are text already, and knows nothing of what they mean.
package table

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"muster/rpc/client/yamldoc"
)

// Formats are the words that Render takes.
var Formats = []string{"table", "json", "yaml", "csv", "compact"}

// Data is one list.
type Data struct {
	// Header has the names of the columns, in capitals.
	Header []string
	// Rows have one cell for each column; a cell may have several lines.
	Rows [][]string
	// Values is what JSON and YAML show instead of the rows.
	Values any
}

// Check refuses words that are no format.
func Check(format string) error {
	if !slices.Contains(Formats, format) {
		return fmt.Errorf("format %q is none of %s", format, strings.Join(Formats, ", "))
	}
	return nil
}

// Render writes the list.
func Render(w io.Writer, format string, d Data) error {
	switch format {
	case "json":
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(d.Values)
	case "yaml":
		document, err := yamldoc.Marshal(d.Values)
		if err != nil {
			return err
		}
		_, err = w.Write(document)
		return err
	case "csv":
		writer := csv.NewWriter(w)
		if err := writer.WriteAll(d.Rows); err != nil {
			return err
		}
		return writer.Error()
	case "table", "compact":
		_, err := io.WriteString(w, framed(d, format == "table")+"\n")
		return err
	}
	return Check(format)
}

func framed(d Data, frame bool) string {
	t := table.NewWriter()
	header := make(table.Row, len(d.Header))
	columns := make([]table.ColumnConfig, len(d.Header))
	for i, name := range d.Header {
		header[i] = name
		columns[i] = table.ColumnConfig{Number: i + 1, AlignHeader: text.AlignCenter}
		if !frame {
			columns[i].AlignHeader = text.AlignLeft
		}
	}
	t.AppendHeader(header)
	t.SetColumnConfigs(columns)
	for _, cells := range d.Rows {
		row := make(table.Row, len(cells))
		for i, cell := range cells {
			row[i] = clean(cell)
		}
		t.AppendRow(row)
	}
	style := table.StyleDefault
	// Headers are written the way they are to be shown.
	style.Format.Header = text.FormatDefault
	style.Options.SeparateRows = true
	// Without rows the line below the header is the last one already.
	style.Options.SeparateHeader = len(d.Rows) > 0
	if !frame {
		style.Options = table.Options{}
		style.Box.PaddingLeft, style.Box.PaddingRight = "  ", ""
	}
	t.SetStyle(style)
	lines := strings.Split(t.Render(), "\n")
	if !frame {
		for i, line := range lines {
			lines[i] = strings.TrimRight(line, " ")
		}
	}
	return strings.Join(lines, "\n")
}

// clean keeps what an instance or image says about itself from steering the
// terminal: control characters are shown, not sent.
func clean(cell string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && (r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0)) {
			return '?'
		}
		return r
	}, cell)
}
