// Says what Go's decoder reads in a body: one line of input is a path, a blank and the body in base64; one line of output
// is a JSON object. The types have the names and kinds of fields that Ollama's request types have (wire contract 1), so
// far as the service reads them.
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"mime"
	"mime/multipart"
	"os"
	"strings"
	"time"
)

type period struct{ nanoseconds int64 }

func (p *period) UnmarshalJSON(data []byte) error {
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		return err
	}
	switch given := value.(type) {
	case float64:
		p.nanoseconds = int64(given * float64(time.Second))
		if given < 0 {
			p.nanoseconds = math.MaxInt64
		}
	case string:
		read, err := time.ParseDuration(given)
		if err != nil {
			return err
		}
		p.nanoseconds = int64(read)
		if read < 0 {
			p.nanoseconds = math.MaxInt64
		}
	default:
		return errors.New("no duration")
	}
	return nil
}

type thought struct{}

func (t *thought) UnmarshalJSON(data []byte) error {
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		return err
	}
	switch value.(type) {
	case bool, string, nil:
		return nil
	}
	return errors.New("neither a truth value nor a word")
}

type chatMessage struct {
	Role      string          `json:"role"`
	Content   string          `json:"content"`
	Thinking  string          `json:"thinking"`
	Images    [][]byte        `json:"images"`
	ToolCalls json.RawMessage `json:"tool_calls"`
	ToolName  string          `json:"tool_name"`
	CallID    string          `json:"tool_call_id"`
}

type openMessage struct {
	Role    string `json:"role"`
	Content any    `json:"content"`
}

type blockMessage struct {
	role    string
	content any
}

func (m *blockMessage) UnmarshalJSON(data []byte) error {
	var read struct {
		Role    string          `json:"role"`
		Content json.RawMessage `json:"content"`
	}
	if err := json.Unmarshal(data, &read); err != nil {
		return err
	}
	m.role = read.Role
	return json.Unmarshal(read.Content, &m.content)
}

// A string, or a list of items.
type textOrItems struct {
	text  string
	items []json.RawMessage
}

func (t *textOrItems) UnmarshalJSON(data []byte) error {
	if json.Unmarshal(data, &t.text) == nil {
		return nil
	}
	return json.Unmarshal(data, &t.items)
}

type native struct {
	Model     string          `json:"model"`
	Stream    *bool           `json:"stream"`
	KeepAlive *period         `json:"keep_alive"`
	Options   map[string]any  `json:"options"`
	Format    json.RawMessage `json:"format"`
	Think     *thought        `json:"think"`
	Truncate  *bool           `json:"truncate"`
	Shift     *bool           `json:"shift"`
}

type generateBody struct {
	native
	Prompt   string   `json:"prompt"`
	Suffix   string   `json:"suffix"`
	System   string   `json:"system"`
	Template string   `json:"template"`
	Context  []int    `json:"context"`
	Raw      bool     `json:"raw"`
	Images   [][]byte `json:"images"`
}

type chatBody struct {
	native
	Messages []chatMessage     `json:"messages"`
	Tools    []json.RawMessage `json:"tools"`
}

type embedBody struct {
	Model      string         `json:"model"`
	Input      any            `json:"input"`
	KeepAlive  *period        `json:"keep_alive"`
	Truncate   *bool          `json:"truncate"`
	Dimensions int            `json:"dimensions"`
	Options    map[string]any `json:"options"`
}

type embeddingsBody struct {
	Model     string         `json:"model"`
	Prompt    string         `json:"prompt"`
	KeepAlive *period        `json:"keep_alive"`
	Options   map[string]any `json:"options"`
}

type showBody struct {
	Model    string         `json:"model"`
	Name     string         `json:"name"`
	System   string         `json:"system"`
	Template string         `json:"template"`
	Verbose  bool           `json:"verbose"`
	Options  map[string]any `json:"options"`
}

type openChatBody struct {
	Model       string        `json:"model"`
	Messages    []openMessage `json:"messages"`
	Stream      bool          `json:"stream"`
	MaxTokens   *int          `json:"max_tokens"`
	Seed        *int          `json:"seed"`
	Stop        any           `json:"stop"`
	Temperature *float64      `json:"temperature"`
}

type completionsBody struct {
	Model     string `json:"model"`
	Prompt    string `json:"prompt"`
	Stream    bool   `json:"stream"`
	MaxTokens *int   `json:"max_tokens"`
	Suffix    string `json:"suffix"`
}

type openEmbedBody struct {
	Model      string `json:"model"`
	Input      any    `json:"input"`
	Dimensions int    `json:"dimensions"`
	Format     string `json:"encoding_format"`
}

type responsesBody struct {
	Model        string      `json:"model"`
	Input        textOrItems `json:"input"`
	Instructions string      `json:"instructions"`
	MaxTokens    *int        `json:"max_output_tokens"`
	Stream       *bool       `json:"stream"`
}

type messagesBody struct {
	Model     string         `json:"model"`
	Messages  []blockMessage `json:"messages"`
	Stream    bool           `json:"stream"`
	MaxTokens int            `json:"max_tokens"`
	System    any            `json:"system"`
}

type pictureBody struct {
	Model  string `json:"model"`
	Prompt string `json:"prompt"`
	Image  string `json:"image"`
	Seed   *int64 `json:"seed"`
}

type decisionBody struct {
	Model     string         `json:"model"`
	State     any            `json:"state"`
	Questions map[string]any `json:"questions"`
	KeepAlive *period        `json:"keep_alive"`
}

// A form, behind a line with its type; its fields and the sizes of its files, each with the first of its values.
func readForm(body []byte) (reading, error) {
	kind, form, _ := bytes.Cut(body, []byte("\n"))
	media, parameters, err := mime.ParseMediaType(string(kind))
	if err != nil || media != "multipart/form-data" || parameters["boundary"] == "" {
		return reading{}, errors.New("no form")
	}
	read, err := multipart.NewReader(bytes.NewReader(form), parameters["boundary"]).ReadForm(25 << 20)
	if err != nil {
		return reading{}, err
	}
	told := reading{Options: map[string]any{}}
	for name, values := range read.Value {
		told.Options[name] = values[0]
	}
	for name, files := range read.File {
		told.Options[name] = files[0].Size
	}
	if len(read.Value["model"]) > 0 {
		told.Model = read.Value["model"][0]
	}
	return told, nil
}

type reading struct {
	Error     string         `json:"error,omitempty"`
	Model     string         `json:"model"`
	Stream    *bool          `json:"stream"`
	KeepAlive *int64         `json:"keep_alive"`
	Options   map[string]any `json:"options"`
	IsEmpty   bool           `json:"is_empty"`
	Contents  []any          `json:"contents"`
}

func isNothing(value any) bool {
	switch given := value.(type) {
	case nil:
		return true
	case string:
		return given == ""
	case []any:
		return len(given) == 0
	}
	return false
}

func read(path string, body []byte) (reading, error) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	switch path {
	case "/v1/audio/transcriptions":
		return readForm(body)
	case "/v1/images/generations", "/v1/images/edits":
		var it pictureBody
		err := decoder.Decode(&it)
		return reading{Model: it.Model, Stream: new(bool), IsEmpty: it.Prompt == ""}, err
	case "/v1/systemone":
		var it decisionBody
		err := decoder.Decode(&it)
		told := native{Model: it.Model, KeepAlive: it.KeepAlive}
		told.Stream = new(bool)
		return told.told(reading{IsEmpty: isNothing(it.State)}), err
	case "/api/generate":
		var it generateBody
		err := decoder.Decode(&it)
		return it.told(reading{IsEmpty: it.Prompt == ""}), err
	case "/api/chat":
		var it chatBody
		err := decoder.Decode(&it)
		contents := []any{}
		for _, one := range it.Messages {
			contents = append(contents, one.Content)
		}
		return it.told(reading{IsEmpty: len(it.Messages) == 0, Contents: contents}), err
	case "/api/embed":
		var it embedBody
		err := decoder.Decode(&it)
		told := native{Model: it.Model, KeepAlive: it.KeepAlive, Options: it.Options}
		return told.told(reading{IsEmpty: isNothing(it.Input)}), err
	case "/api/embeddings":
		var it embeddingsBody
		err := decoder.Decode(&it)
		told := native{Model: it.Model, KeepAlive: it.KeepAlive, Options: it.Options}
		return told.told(reading{IsEmpty: it.Prompt == ""}), err
	case "/api/show":
		var it showBody
		err := decoder.Decode(&it)
		if it.Model == "" {
			it.Model = it.Name
		}
		return reading{Model: it.Model, Options: it.Options}, err
	case "/v1/chat/completions":
		var it openChatBody
		err := decoder.Decode(&it)
		contents := []any{}
		for _, one := range it.Messages {
			contents = append(contents, one.Content)
		}
		return reading{Model: it.Model, Stream: &it.Stream, IsEmpty: len(it.Messages) == 0, Contents: contents}, err
	case "/v1/completions":
		var it completionsBody
		err := decoder.Decode(&it)
		return reading{Model: it.Model, Stream: &it.Stream, IsEmpty: it.Prompt == ""}, err
	case "/v1/embeddings":
		var it openEmbedBody
		err := decoder.Decode(&it)
		return reading{Model: it.Model, IsEmpty: isNothing(it.Input)}, err
	case "/v1/responses":
		var it responsesBody
		err := decoder.Decode(&it)
		isEmpty := it.Input.text == "" && len(it.Input.items) == 0
		return reading{Model: it.Model, Stream: it.Stream, IsEmpty: isEmpty}, err
	case "/v1/messages":
		var it messagesBody
		err := decoder.Decode(&it)
		contents := []any{}
		for _, one := range it.Messages {
			contents = append(contents, one.content)
		}
		return reading{Model: it.Model, Stream: &it.Stream, IsEmpty: len(it.Messages) == 0, Contents: contents}, err
	}
	return reading{}, errors.New("no such path")
}

// told adds what all of Ollama's own requests have.
func (n native) told(to reading) reading {
	to.Model, to.Stream, to.Options = n.Model, n.Stream, n.Options
	if n.KeepAlive != nil {
		to.KeepAlive = &n.KeepAlive.nanoseconds
	}
	return to
}

func main() {
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	answers := bufio.NewWriter(os.Stdout)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		path, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		body, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			panic(err)
		}
		found, err := read(path, body)
		if err != nil {
			found = reading{Error: err.Error()}
		}
		answer, err := json.Marshal(found)
		if err != nil {
			panic(err)
		}
		answers.Write(append(answer, '\n'))
		answers.Flush()
	}
}
