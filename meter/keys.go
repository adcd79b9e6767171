package meter

// key is a JSON member name that matters to some reader: one that a path in the
// table of forms names, or one of a request's. All others are keyNone.
type key uint8

const (
	keyNone    key = iota
	keyElement     // in the tree: what lies in an array
)

// names are the known names, by a hash that is right for all but a few. They are
// known before any init function runs, and never change after.
var names = struct {
	buckets [512][]name
	last    key
}{last: keyElement}

type name struct {
	text string
	key  key
}

// intern makes a name known.
func intern(text string) key {
	if k := keyOf([]byte(text)); k != keyNone {
		return k
	}
	names.last++ // a 256th would start again at keyNone: TestForms counts
	bucket := &names.buckets[bucketOf([]byte(text))]
	*bucket = append(*bucket, name{text, names.last})
	return names.last
}

// keyOf finds a name.
func keyOf(text []byte) key {
	if len(text) == 0 {
		return keyNone
	}
	bucket := names.buckets[bucketOf(text)]
	for i := range bucket {
		if bucket[i].text == string(text) {
			return bucket[i].key
		}
	}
	return keyNone
}

func bucketOf(text []byte) uint {
	n := len(text)
	return (uint(text[0])*7 + uint(text[n/2])*31 + uint(text[n-1])*131 + uint(n)*17) % 512
}

// The names that readers of requests ask for themselves.
var (
	keyModel               = intern("model")
	keyStream              = intern("stream")
	keyStreamOptions       = intern("stream_options")
	keyIncludeUsage        = intern("include_usage")
	keyMessages            = intern("messages")
	keyContents            = intern("contents")
	keyModelID             = intern("model_id")
	keyPrompt              = intern("prompt")
	keyInput               = intern("input")
	keyInstances           = intern("instances")
	keyRole                = intern("role")
	keyParts               = intern("parts")
	keyMaxTokens           = intern("max_tokens")
	keyMaxCompletionTokens = intern("max_completion_tokens")
	keyMaxOutputTokens     = intern("max_output_tokens")
	keyMaxTokensToSample   = intern("max_tokens_to_sample")
	keyMaxNewTokens        = intern("max_new_tokens")
	keyMaxGenLen           = intern("max_gen_len")
	keyN                   = intern("n")
	keyBestOf              = intern("best_of")
	keyGenerationConfig    = intern("generationConfig")
	keyGenerationConfig2   = intern("generation_config")
	keyMaxOutputTokens2    = intern("maxOutputTokens")
	keyCandidateCount      = intern("candidateCount")
	keyCandidateCount2     = intern("candidate_count")
	keyInferenceConfig     = intern("inferenceConfig")
	keyMaxTokens2          = intern("maxTokens")
	keyTextGeneration      = intern("textGenerationConfig")
	keyMaxTokenCount       = intern("maxTokenCount")
	keyOptions             = intern("options")
	keyNumPredict          = intern("num_predict")
	keyParameters          = intern("parameters")
	keyData                = intern("data")
	keyURL                 = intern("url")
	keyImageURL            = intern("image_url")
	keyBytes               = intern("bytes")
	keyFileData            = intern("file_data")
	keyFileID              = intern("file_id")
	keyFileURI             = intern("fileUri")
	keyFileURI2            = intern("file_uri")
	keyImages              = intern("images")
	keyDetail              = intern("detail")
	keySource              = intern("source")
)
