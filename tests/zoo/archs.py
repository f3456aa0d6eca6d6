"""Tiny random bases of many architectures: 4 blocks, 64 wide, 320 tokens.

Sliding windows of 8 and chunks of 16, so that a text of 36 tokens crosses them.
"""

# fmt: off
C = dict(vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
         num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.1,
         bos_token_id=1, eos_token_id=2, pad_token_id=0)
MOE = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=48, num_local_experts=4)
MLA = dict(q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16,
           n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=48,
           first_k_dense_replace=1, n_group=1, topk_group=1, num_key_value_heads=4, head_dim=8)
LIN = dict(linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16,
           linear_conv_kernel_dim=4)
H16 = dict(head_dim=16)
# Recurrences of 36 steps over larger random weights make much of the last digit.
CALM = dict(initializer_range=0.03)


def c(**more):
    return {**C, **more}


CONFIGS = {
 'llama': c(), 'mistral': c(sliding_window=8, head_dim=16), 'mixtral': c(num_local_experts=4, sliding_window=None),
 'qwen2': c(), 'qwen2_moe': c(**MOE, shared_expert_intermediate_size=48, decoder_sparse_step=1),
 'qwen3': c(**H16), 'qwen3_moe': c(**MOE, **H16), 'qwen3_next': c(**CALM, **MOE, **H16, **LIN, shared_expert_intermediate_size=48, full_attention_interval=2, partial_rotary_factor=0.5),
 'qwen3_5_text': c(**CALM, **H16, **LIN, full_attention_interval=2), 'qwen3_5_moe_text': c(**CALM, **MOE, **H16, **LIN, shared_expert_intermediate_size=48),
 'gemma': c(**H16), 'gemma2': c(**H16, sliding_window=8, query_pre_attn_scalar=16),
 'gemma3_text': c(**H16, sliding_window=8, query_pre_attn_scalar=16),
 'gemma4_text': c(**H16, sliding_window=8, global_head_dim=16, hidden_size_per_layer_input=16, vocab_size_per_layer_input=320, num_kv_shared_layers=0),
 'gemma3n_text': c(**H16, sliding_window=8, intermediate_size=96, hidden_size_per_layer_input=16, vocab_size_per_layer_input=320, num_kv_shared_layers=0, laurel_rank=8, activation_sparsity_pattern=[0.0]*4),
 'phi': c(), 'phi3': c(), 'phimoe': c(num_local_experts=4),
 'gpt2': dict(vocab_size=320, n_embd=64, n_layer=4, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.1),
 'gpt_bigcode': dict(vocab_size=320, n_embd=64, n_layer=4, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.1),
 'gpt_neo': dict(vocab_size=320, hidden_size=64, num_layers=4, num_heads=4, attention_types=[[["global","local"],2]], window_size=8, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0),
 'gpt_neox': c(), 'gptj': dict(vocab_size=320, n_embd=64, n_layer=4, n_head=4, n_positions=256, rotary_dim=8, bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.1),
 'falcon': c(), 'bloom': dict(vocab_size=320, hidden_size=64, n_layer=4, n_head=4, bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.1),
 'opt': c(ffn_dim=96, word_embed_proj_dim=64), 'mpt': dict(vocab_size=320, d_model=64, n_layers=4, n_heads=4, max_seq_len=256, bos_token_id=1, eos_token_id=2, pad_token_id=0),
 'stablelm': c(), 'starcoder2': c(), 'olmo2': c(), 'olmo3': c(sliding_window=8), 'olmoe': c(**MOE), 'cohere': c(), 'cohere2': c(sliding_window=8),
 'granite': c(), 'granitemoe': c(num_local_experts=4), 'granitemoehybrid': c(num_local_experts=4, shared_intermediate_size=48, mamba_n_heads=4, mamba_d_head=32, mamba_d_state=16, mamba_n_groups=1, layer_types=["mamba","attention","mamba","attention"]),
 'glm': c(**H16), 'glm4': c(**H16), 'glm4_moe': c(**MOE, **H16, n_routed_experts=4, n_shared_experts=1, first_k_dense_replace=1, n_group=1, topk_group=1),
 'deepseek_v2': c(**MLA), 'deepseek_v3': c(**MLA),
 'mamba': dict(vocab_size=320, hidden_size=64, num_hidden_layers=4, state_size=8, bos_token_id=1, eos_token_id=2, pad_token_id=0),
 'mamba2': dict(vocab_size=320, hidden_size=64, num_hidden_layers=4, state_size=8, num_heads=8, head_dim=16, n_groups=1, chunk_size=16, bos_token_id=1, eos_token_id=2, pad_token_id=0),
 'jamba': c(num_experts=4, num_experts_per_tok=2, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1, mamba_d_state=8, mamba_dt_rank=8, use_mamba_kernels=False),
 'bamba': c(mamba_n_heads=4, mamba_d_head=32, mamba_d_state=16, mamba_n_groups=1, attn_layer_indices=[1,3]),
 'falcon_h1': c(**H16, mamba_d_ssm=64, mamba_n_heads=4, mamba_d_head=16, mamba_d_state=16, mamba_n_groups=1),
 'recurrent_gemma': c(lru_width=64, attention_window_size=8, **H16),
 'nemotron_h': c(**CALM, **H16, hybrid_override_pattern="M*-M", mamba_num_heads=4, mamba_head_dim=32, ssm_state_size=16, n_groups=1),
 'nemotron': c(), 'zamba2': c(layer_types=['mamba','hybrid','mamba','hybrid'], num_mem_blocks=1, hybrid_layer_ids=[1,3], mamba_d_state=16, mamba_ngroups=1, n_mamba_heads=4, mamba_headdim=32),
 'lfm2': c(layer_types=["conv","full_attention","conv","full_attention"], block_multiple_of=8), 'smollm3': c(no_rope_layer_interval=2),
 'llama4_text': c(**H16, intermediate_size_mlp=96, num_local_experts=4, num_experts_per_tok=1, interleave_moe_layer_step=2, attention_chunk_size=16),
 'gpt_oss': c(**H16, num_local_experts=4, num_experts_per_tok=2, sliding_window=8),
 'exaone4': c(**H16, sliding_window=8, layer_types=["sliding_attention","full_attention"]*2), 'ministral3': c(**H16), 'ministral': c(**H16, sliding_window=8),
 'ernie4_5': c(**H16), 'hunyuan_v1_dense': c(**H16), 'seed_oss': c(**H16), 'helium': c(**H16), 'apertus': c(), 'arcee': c(**H16),
 'codegen': dict(vocab_size=320, n_embd=64, n_layer=4, n_head=4, n_positions=256, n_ctx=256, rotary_dim=8, bos_token_id=1, eos_token_id=2, pad_token_id=0),
 'persimmon': c(), 'biogpt': c(), 'xglm': dict(vocab_size=320, d_model=64, ffn_dim=96, num_layers=4, attention_heads=4, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0),
 'internlm3': c(**H16), 'bitnet': c(), 'diffllama': c(**H16),
 'rwkv': dict(vocab_size=320, hidden_size=64, num_hidden_layers=4, context_length=256, bos_token_id=1, eos_token_id=2),
 'bert': dict(vocab_size=320, hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=96, is_decoder=True, max_position_embeddings=256, pad_token_id=0),
 'nanochat': c(),
}
# fmt: on
