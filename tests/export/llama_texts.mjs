// Greedy texts of llama.cpp: node llama_texts.mjs MODEL.gguf '{"prompts": […], "loras": […], "tokens": 16}'
import { getLlama, LlamaCompletion } from "node-llama-cpp";

const [model_path, asked] = process.argv.slice(2);
const { prompts, loras, tokens } = JSON.parse(asked);
const llama = await getLlama({ build: "never", gpu: false, logLevel: "error" });
const model = await llama.loadModel({ modelPath: model_path });
const texts = {};
for (const lora of [null, ...loras]) {
  texts[lora ?? ""] = [];
  for (const prompt of prompts) {
    const context = await model.createContext({
      contextSize: 256, threads: 1, flashAttention: false, experimentalKvCacheKeyType: "F32",
      experimentalKvCacheValueType: "F32", ...(lora && { lora: { adapters: [{ filePath: lora, scale: 1 }] } }),
    });
    const completion = new LlamaCompletion({ contextSequence: context.getSequence() });
    texts[lora ?? ""].push(await completion.generateCompletion(prompt, { maxTokens: tokens, temperature: 0 }));
    await context.dispose();
  }
}
console.log(JSON.stringify(texts));
process.exit(0);
