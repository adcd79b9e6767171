package meter

// key is a JSON member name that matters to some reader; all others are keyNone.
type key uint8

const (
	keyNone key = iota

	// Replies.
	keyID
	keyModel
	keyUsage
	keyType
	keyStatus
	keyError
	keyResponse
	keyMessage
	keyResponseID
	keyModelVersion
	keyUsageMetadata
	keyChoices
	keyOutput
	keyContent
	keyCandidates
	keyDelta
	keyFinishReason
	keyGeminiFinishReason
	keyStopReason

	// Text in replies, beside content and delta.
	keyText
	keyThinking
	keyReasoning
	keyReasoningContent
	keyRefusal
	keyArguments
	keyPartialJSON
	keyInput
	keyArgs

	// Requests.
	keyMaxTokens
	keyMaxCompletionTokens
	keyMaxOutputTokens
	keyN
	keyBestOf
	keyGenerationConfig
	keyGeminiMaxOutputTokens
	keyCandidateCount
	keyInferenceConfig
	keyConverseMaxTokens
	keyData
	keyURL
	keyImageURL
	keyBytes
	keyFileData
	keyFileID
	keyFileURI
	keyDetail
	keySource

	numKeys
)

// keyOf finds a name in the table above.
func keyOf(name []byte) key {
	switch string(name) {
	case "id":
		return keyID
	case "model":
		return keyModel
	case "usage":
		return keyUsage
	case "type":
		return keyType
	case "status":
		return keyStatus
	case "error":
		return keyError
	case "response":
		return keyResponse
	case "message":
		return keyMessage
	case "responseId":
		return keyResponseID
	case "modelVersion":
		return keyModelVersion
	case "usageMetadata":
		return keyUsageMetadata
	case "choices":
		return keyChoices
	case "output":
		return keyOutput
	case "content":
		return keyContent
	case "candidates":
		return keyCandidates
	case "delta":
		return keyDelta
	case "finish_reason":
		return keyFinishReason
	case "finishReason":
		return keyGeminiFinishReason
	case "stop_reason":
		return keyStopReason
	case "text":
		return keyText
	case "thinking":
		return keyThinking
	case "reasoning":
		return keyReasoning
	case "reasoning_content":
		return keyReasoningContent
	case "refusal":
		return keyRefusal
	case "arguments":
		return keyArguments
	case "partial_json":
		return keyPartialJSON
	case "input":
		return keyInput
	case "args":
		return keyArgs
	case "max_tokens":
		return keyMaxTokens
	case "max_completion_tokens":
		return keyMaxCompletionTokens
	case "max_output_tokens":
		return keyMaxOutputTokens
	case "n":
		return keyN
	case "best_of":
		return keyBestOf
	case "generationConfig", "generation_config":
		return keyGenerationConfig
	case "maxOutputTokens":
		return keyGeminiMaxOutputTokens
	case "candidateCount", "candidate_count":
		return keyCandidateCount
	case "inferenceConfig":
		return keyInferenceConfig
	case "maxTokens":
		return keyConverseMaxTokens
	case "data":
		return keyData
	case "url":
		return keyURL
	case "image_url":
		return keyImageURL
	case "bytes":
		return keyBytes
	case "file_data":
		return keyFileData
	case "file_id":
		return keyFileID
	case "fileUri", "file_uri":
		return keyFileURI
	case "detail":
		return keyDetail
	case "source":
		return keySource
	default:
		return keyNone
	}
}
