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
)

var keys = map[string]key{
	"id": keyID, "model": keyModel, "usage": keyUsage, "type": keyType, "status": keyStatus, "error": keyError,
	"response": keyResponse, "message": keyMessage,
	"responseId": keyResponseID, "modelVersion": keyModelVersion, "usageMetadata": keyUsageMetadata,
	"choices": keyChoices, "output": keyOutput, "content": keyContent, "candidates": keyCandidates, "delta": keyDelta,
	"finish_reason": keyFinishReason, "finishReason": keyGeminiFinishReason, "stop_reason": keyStopReason,

	"text": keyText, "thinking": keyThinking, "reasoning": keyReasoning, "reasoning_content": keyReasoningContent,
	"refusal": keyRefusal, "arguments": keyArguments, "partial_json": keyPartialJSON, "input": keyInput, "args": keyArgs,

	"max_tokens": keyMaxTokens, "max_completion_tokens": keyMaxCompletionTokens, "max_output_tokens": keyMaxOutputTokens,
	"n": keyN, "best_of": keyBestOf,
	"generationConfig": keyGenerationConfig, "generation_config": keyGenerationConfig,
	"maxOutputTokens": keyGeminiMaxOutputTokens, "candidateCount": keyCandidateCount, "candidate_count": keyCandidateCount,
	"inferenceConfig": keyInferenceConfig, "maxTokens": keyConverseMaxTokens,
	"data": keyData, "url": keyURL, "image_url": keyImageURL, "bytes": keyBytes, "file_data": keyFileData,
	"file_id": keyFileID, "fileUri": keyFileURI, "file_uri": keyFileURI, "detail": keyDetail, "source": keySource,
}
