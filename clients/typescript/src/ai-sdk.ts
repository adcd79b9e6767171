import type { EmbeddingModelMiddleware, LanguageModelMiddleware } from "ai";
import type { Tidegate } from "./client.js";
import { maxTokens } from "./contract.js";
import { begin, type Metered, sizeOf, type Tokens } from "./metered.js";
import type { Call } from "./types.js";

/** What calls of a model are for. `providerOptions.tidegate` of a call says it for that one, and wins. */
export interface EmbeddingCall extends Pick<Call, "port_id" | "user_id" | "run_id"> {
  /** Of the application, such as `chat`. */
  feature: string;
}

export interface LanguageCall extends EmbeddingCall {
  /** How many tokens a call without `maxOutputTokens` is taken to answer. Default 1,024. */
  unboundedOutput?: number;
}

type GenerateOptions = Parameters<Required<LanguageModelMiddleware>["wrapGenerate"]>[0];
type GenerateResult = Awaited<ReturnType<GenerateOptions["doGenerate"]>>;
type StreamPart = Awaited<ReturnType<GenerateOptions["doStream"]>>["stream"] extends ReadableStream<infer Part> ? Part : never;

/**
 * For `wrapLanguageModel`: each call of the model is reserved before it is made, and what the provider says that it cost
 * settles that, however the call ends. A call that is not allowed is not made: it throws RefusedError.
 */
export function languageModelMiddleware(tidegate: Tidegate, call: LanguageCall): LanguageModelMiddleware {
  const { unboundedOutput = 1_024, ...what } = call;

  async function prepare({ params: all, model }: Pick<GenerateOptions, "params" | "model">) {
    const [own, params] = split(all);
    const { prompt, tools, responseFormat, maxOutputTokens = unboundedOutput, abortSignal } = params;
    const size = { input: sizeOf([prompt, tools, responseFormat]), output: maxOutputTokens };
    const metered = await begin(tidegate, { ...what, ...own, ...namesOf(model), ...size, signal: abortSignal });
    return { params, metered };
  }

  return {
    specificationVersion: "v4",

    async wrapGenerate(options) {
      const { params, metered } = await prepare(options);
      const result = await attempt(metered, () => options.model.doGenerate(params));
      metered.read(() => {
        metered.answered(result.response, result.response?.headers);
        for (const part of result.content) {
          if (part.type === "text" || part.type === "reasoning") metered.came(part.text);
          if (part.type === "tool-call") metered.came(part.input);
        }
        finished(metered, result);
      });
      return result;
    },

    async wrapStream(options) {
      const { params, metered } = await prepare(options);
      const result = await attempt(metered, () => options.model.doStream(params));
      metered.answered(undefined, result.response?.headers);
      return { ...result, stream: metered.watch(result.stream, (part) => look(metered, part)) };
    },
  };
}

/** For `wrapEmbeddingModel`: as languageModelMiddleware. `embedMany` may make several calls; each is reserved by itself. */
export function embeddingModelMiddleware(tidegate: Tidegate, call: EmbeddingCall): EmbeddingModelMiddleware {
  return {
    specificationVersion: "v4",

    async wrapEmbed({ params: all, model }) {
      const [own, params] = split(all);
      const metered = await begin(tidegate, { ...call, ...own, ...namesOf(model), input: sizeOf(params.values), output: 0, signal: params.abortSignal });
      const result = await attempt(metered, () => model.doEmbed(params));
      metered.answered(undefined, result.response?.headers);
      metered.finished(usable({ input_tokens: result.usage?.tokens ?? Number.NaN, output_tokens: 0 }));
      return result;
    },
  };
}

/** Takes Tidegate's own options out: some providers send all that are there. */
function split<P extends { providerOptions?: Record<string, object> }>(params: P): [own: Call, params: P] {
  const { tidegate: own = {}, ...providerOptions } = params.providerOptions ?? {};
  return [own as Call, { ...params, providerOptions }];
}

async function attempt<R>(metered: Metered, make: () => PromiseLike<R>): Promise<R> {
  try {
    return await make();
  } catch (err) {
    metered.failed(err);
    throw err;
  }
}

function look(metered: Metered, part: StreamPart): void {
  switch (part.type) {
    case "text-delta":
    case "reasoning-delta":
    case "tool-input-delta":
      return metered.came(part.delta);
    case "response-metadata":
      return metered.answered(part);
    case "error":
      return metered.erred();
    case "finish":
      return finished(metered, part);
  }
}

function finished(metered: Metered, { usage, finishReason }: Pick<GenerateResult, "usage" | "finishReason">): void {
  if (finishReason.unified === "error") metered.erred();
  metered.finished(tokensOf(usage));
}

/** As Tidegate counts: the cache is inside the input, and reasoning inside the output, even where a provider told them apart. */
function tokensOf({ inputTokens, outputTokens }: GenerateResult["usage"]): Tokens | undefined {
  const { cacheRead = 0, cacheWrite = 0 } = inputTokens;
  const { reasoning = 0 } = outputTokens;
  let input = inputTokens.total ?? inputTokens.noCache;
  let output = outputTokens.total ?? outputTokens.text;
  if (input === undefined && output === undefined) return undefined;
  input ??= 0;
  output ??= 0;
  if (inputTokens.total === undefined || cacheRead + cacheWrite > input) input += cacheRead + cacheWrite;
  if (outputTokens.total === undefined || reasoning > output) output += reasoning;
  return usable({ input_tokens: input, output_tokens: output, details: { cache_read_input_tokens: cacheRead, cache_write_input_tokens: cacheWrite, reasoning_output_tokens: reasoning } });
}

/** Undefined if a figure makes no sense. */
function usable(told: Tokens): Tokens | undefined {
  const counts = [told.input_tokens, told.output_tokens ?? 0, ...Object.values(told.details ?? {})];
  return counts.every((n) => Number.isInteger(n) && n >= 0 && n <= maxTokens) ? told : undefined;
}

/** The provider as Tidegate's other doors call it: `openai` of `openai.responses`. */
function namesOf(model: { provider: string; modelId: string }): { provider: string; model: string } {
  const first = model.provider.split(".", 1)[0] as string;
  const name = providers[first] ?? first;
  return { provider: name.slice(0, 64) || "unknown", model: model.modelId.length <= 128 ? model.modelId || "unknown" : "unknown" };
}

const providers: Record<string, string> = { azure: "azure.openai", "amazon-bedrock": "aws.bedrock", vertex: "google", gateway: "vercel" };
